// In what is there to be copied: the server as the visitor reaches it, also behind a proxy.
"use strict";

function tellServer() {
  for (const place of document.querySelectorAll("[data-server]")) place.textContent = location.origin;
}
document.addEventListener("DOMContentLoaded", tellServer);
document.addEventListener("htmx:afterSettle", tellServer);
