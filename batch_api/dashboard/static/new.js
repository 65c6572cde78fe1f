// The form of a new batch: sends the file to the API, then has it made a batch of.
"use strict";

const HEAD_BYTES = 256 * 1024;
const find = (id) => document.getElementById(id);
const form = find("new");
let isSending = false; // and then goes elsewhere, or says why not
let sent = { file: null, id: null }; // what was uploaded already, if only the batch was refused

class Refused extends Error {
  constructor({ message, param }) {
    super(message);
    this.param = param;
  }
}

// --- The file -------------------------------------------------------------------------------

const isGzip = (file) => file.name.endsWith(".gz");
const unpacked = (file) => (isGzip(file) ? file.stream().pipeThrough(new DecompressionStream("gzip")) : file.stream());

async function head(file) {
  const reader = unpacked(file).getReader();
  const decoder = new TextDecoder();
  let text = "";
  while (text.length < HEAD_BYTES && !text.trimStart().includes("\n")) {
    const { done, value } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
  }
  reader.cancel();
  return text;
}

async function guessEndpoint(file) {
  try {
    const { url } = JSON.parse((await head(file)).trimStart().split("\n", 1)[0]);
    const options = [...find("endpoint").options].map((option) => option.value);
    if (options.includes(url)) find("endpoint").value = url;
  } catch {
    // Whatever is wrong with it, the API says it better.
  }
}

function choose() {
  explain("file", "");
  const [file] = find("file").files;
  if (file) guessEndpoint(file);
}

// --- Sending --------------------------------------------------------------------------------

async function upload(file) {
  if (sent.file === file) return sent.id;
  const content = isGzip(file) ? await new Response(unpacked(file)).blob() : file;
  const parts = new FormData();
  parts.append("purpose", "batch");
  parts.append("file", content, file.name.replace(/\.gz$/, ""));
  const { id } = await post("/v1/files", parts, (share) => { find("sent").value = share; }, "file");
  sent = { file, id };
  return id;
}

// XMLHttpRequest, as fetch does not tell how much has been sent. `param`: what is to blame if the
// API blames nothing.
function post(path, body, progress = () => {}, param = null) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.responseType = "json";
    request.upload.onprogress = ({ loaded, total }) => progress(loaded / total);
    request.onerror = () => reject(new Refused({ message: "The server can’t be reached." }));
    request.onload = () => {
      const told = request.response;
      if (request.status === 200) resolve(told);
      else reject(new Refused({ message: `The server answered ${request.status}.`, ...told?.error, param: told?.error.param ?? param }));
    };
    request.send(body);
  });
}

function metadata() {
  const pairs = [...document.querySelectorAll(".keyed")]
    .map((pair) => [pair.querySelector(".key").value.trim(), pair.querySelector(".value").value])
    .filter(([key, value]) => key || value);
  return pairs.length ? Object.fromEntries(pairs) : null;
}

async function create() {
  const [file] = find("file")?.files ?? [];
  if (!file && !form.dataset.file) throw new Refused({ message: "Choose a file first.", param: "file" });
  const batch = {
    input_file_id: form.dataset.file ?? (await upload(file)),
    endpoint: find("endpoint").value,
    completion_window: find("completion_window").value,
    metadata: metadata(),
  };
  return post("/v1/batches", JSON.stringify(batch));
}

async function submit() {
  document.querySelectorAll(".error").forEach((place) => { place.textContent = ""; });
  document.querySelectorAll("[aria-invalid]").forEach((input) => input.removeAttribute("aria-invalid"));
  isSending = true;
  find("sending").hidden = !find("file")?.files.length;
  try {
    const { id } = await create();
    location.assign(`/batches/${id}`);
  } catch (error) {
    isSending = false;
    explain(...placed(error));
  } finally {
    find("sending").hidden = true;
  }
}

// --- What is wrong, at its field ------------------------------------------------------------

function placed(error) {
  if (!(error instanceof Refused)) return ["file", "The file can’t be read: is it really gzip?"];
  const top = (error.param ?? "").split(/[.[]/)[0];
  const field = [...document.querySelectorAll("[data-param]")].find((one) => one.dataset.param.split(" ").includes(top));
  const place = field?.querySelector(".error").id.replace("-error", "") ?? "form";
  return [place, error.message];
}

function explain(name, text) {
  find(`${name}-error`).textContent = text;
  if (!text) return;
  find(name)?.setAttribute("aria-invalid", "true");
  find(name)?.focus();
}

// --- What the visitor does ------------------------------------------------------------------

function addPair() {
  find("pairs").append(find("pair").content.cloneNode(true));
  find("pairs").lastElementChild.querySelector("input").focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!isSending) submit();
});
find("add").addEventListener("click", addPair);
find("pairs").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  button.closest(".keyed").remove();
  find("add").focus();
});

const drop = find("drop");
if (drop) {
  find("file").addEventListener("change", choose);
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (!event.dataTransfer.files.length) return;
    find("file").files = event.dataTransfer.files;
    choose();
  });
}
