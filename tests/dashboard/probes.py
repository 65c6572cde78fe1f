"""JavaScript that looks a page over, as a person would who can't see, or not well."""

NAMELESS = """
(() => {
  const usable = "button, a, input, select, textarea, progress, nav, dialog, [role=progressbar]";
  const isHidden = (it) => it.type === "hidden" || it.closest("dialog:not([open])");
  const nameOf = (it) =>
    it.getAttribute("aria-label") ||
    it.getAttribute("aria-labelledby") ||
    [...(it.labels ?? [])].map((label) => label.textContent).join("").trim() ||
    it.textContent.trim();
  return [...document.querySelectorAll(usable)]
    .filter((it) => !isHidden(it) && !nameOf(it))
    .map((it) => it.outerHTML.slice(0, 100));
})()
"""
"""What can be used and has no name."""

TWICE = """
[...document.querySelectorAll("[id]")]
  .map((it) => it.id)
  .filter((id, at, all) => all.indexOf(id) !== at)
"""
"""Ids that several things have."""

CONTRASTS = """
(() => {
  const parse = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return { rgb: [r, g, b], a };
  };
  const linear = (it) => (it <= 0.03928 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((it) => linear(it / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (it) => {
    for (; it; it = it.parentElement) {
      const { rgb, a } = parse(getComputedStyle(it).backgroundColor);
      if (a === 1) return rgb;
    }
    return [255, 255, 255];
  };
  const isText = (node) => node.nodeType === 3 && node.textContent.trim();
  const isRead = (it) => [...it.childNodes].some(isText) && it.checkVisibility();
  const contrast = (it) => {
    const [a, b] = [light(parse(getComputedStyle(it).color).rgb), light(ground(it))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  return [...document.body.querySelectorAll("*")]
    .filter((it) => isRead(it) && !it.closest("script, noscript, template"))
    .map((it) => ({ contrast: contrast(it), text: it.textContent.trim().slice(0, 40) }));
})()
"""
"""How each element with text of its own stands out from what lies behind it; by WCAG 2."""
