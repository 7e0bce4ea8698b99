"use strict";
(function () {
  var tip = document.getElementById("tip");
  var axes = JSON.parse(document.getElementById("axes").textContent);
  var maps = new WeakMap();
  // Titles are what a page without this script shows; with it they are shown at once, and to fingers.
  function words(el) {
    if (el.__words === undefined) {
      var title = null;
      for (var i = 0; i !== el.childNodes.length; i++) {
        if (el.childNodes[i].nodeName === "title") { title = el.childNodes[i]; }
      }
      el.__words = title ? title.textContent : "";
      if (title) {
        el.removeChild(title);
        el.setAttribute("aria-label", el.__words);
      }
    }
    return el.__words;
  }
  function digits(x) {
    if (x === 0) { return "0"; }
    return String(parseFloat(x.toPrecision(4)));
  }
  function named(d, which, size, from, to) {
    to = Math.min(to, size);
    var axis = axes[d[which]], listed = d[which + "l"];
    var labels = listed ? listed.split("|") : axis ? axis.labels : null;
    var first = +(d[which + "o"] || 0);
    from += first;
    to += first;
    if (labels) { to = Math.min(to, labels.length); }
    function one(i) { return labels ? "\u2068" + labels[i] + "\u2069" : String(i); }
    var text = to - from > 1 ? one(from) + " – " + one(to - 1) : one(from);
    return (axis ? axis.name + " " : "") + text;
  }
  function cell(el, e) {
    var d = el.dataset, m = +d.m, n = +d.n, box = el.getBoundingClientRect();
    if (!maps.has(el)) {
      var raw = atob(d.v), values = new Uint16Array(raw.length / 2);
      for (var i = 0; i !== values.length; i++) {
        values[i] = raw.charCodeAt(2 * i) + 256 * raw.charCodeAt(2 * i + 1);
      }
      maps.set(el, values);
    }
    var r = Math.min(m - 1, Math.max(0, Math.floor((e.clientY - box.top) / box.height * m)));
    var c = Math.min(n - 1, Math.max(0, Math.floor((e.clientX - box.left) / box.width * n)));
    if (d.up) { r = m - 1 - r; }
    // Of a map beyond what a page should weigh there are only means of blocks.
    var f = +(d.f || 1), a = f * d.a, b = f * d.b;
    r = Math.floor(r / f);
    c = Math.floor(c / f);
    var value = maps.get(el)[r * Math.ceil(n / f) + c] / 65535 * d.max;
    var mean = (a > 1 && +d.s > 1) || (b > 1 && +d.t > 1) ? ": mean " : ": ";
    return named(d, "r", +d.s, r * a, (r + 1) * a) + ", " + named(d, "c", +d.t, c * b, (c + 1) * b) +
      mean + digits(value);
  }
  function show(e) {
    var el = e.target, text = "";
    if (el.namespaceURI === "http://www.w3.org/2000/svg") {
      text = words(el);
      if (el.dataset.v) { text = cell(el, e); }
    }
    if (!text) { tip.style.display = "none"; return; }
    tip.textContent = text;
    tip.style.display = "block";
    var box = tip.getBoundingClientRect(), left = e.clientX + 14, top = e.clientY + 16;
    if (left + box.width > innerWidth - 6) { left = Math.max(6, innerWidth - 6 - box.width); }
    if (top + box.height > innerHeight - 6) { top = e.clientY - box.height - 12; }
    tip.style.left = left + "px";
    tip.style.top = top + "px";
  }
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", function () { tip.style.display = "none"; }, true);
  // On paper nothing can be unfolded.
  var opened = [];
  addEventListener("beforeprint", function () {
    opened = [].slice.call(document.querySelectorAll("details:not([open])"));
    opened.forEach(function (el) { el.open = true; });
  });
  addEventListener("afterprint", function () {
    opened.forEach(function (el) { el.open = false; });
    opened = [];
  });
}());
