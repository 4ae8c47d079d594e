"use strict";
// The page of a served model. Nothing that comes from a file's name or the server is ever read as HTML: textContent only.
(() => {
  const $ = (id) => document.getElementById(id);
  const AT_ONCE = 2; // uploads under way
  const KEPT = 60; // results on the page
  const NEAR = 5;
  const PRECISION = 0.95; // the share that is to be right of what is not marked unsure
  const KNOWN = 0.999; // a training photo this similar is the photo itself
  const queue = [];
  let active = 0;
  let done = 0;
  let model = null;

  // ---- the server

  const stored = () => { try { return sessionStorage.getItem("frostline-token") || ""; } catch { return ""; } };
  let token = stored();

  async function ask(path, options = {}) {
    const headers = { ...(options.headers || {}) };
    if (token) headers.Authorization = `Bearer ${token}`;
    for (let attempt = 1; ; attempt++) {
      let response;
      try {
        response = await fetch(path, { ...options, headers, cache: "no-store" });
      } catch {
        throw new Error("The server can't be reached. Is it still running?");
      }
      let body = null;
      try { body = await response.json(); } catch { /* no JSON: the status has to do */ }
      if (response.ok && body) return body;
      if (response.status === 401) { wantToken(); throw new Error("The server wants a token; enter it above and try again."); }
      if (response.status === 503 && attempt < 4) {
        await new Promise((wake) => setTimeout(wake, 1000 * (Number(response.headers.get("Retry-After")) || 1)));
        continue;
      }
      throw new Error(sentence(body?.error?.message || `The server answered ${response.status}.`));
    }
  }

  const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

  function wantToken() {
    $("token-error").textContent = token ? "The server did not accept this token." : "";
    $("token-form").hidden = false;
    $("token").focus();
  }

  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    token = $("token").value.trim();
    try { sessionStorage.setItem("frostline-token", token); } catch { /* kept in this page then */ }
    $("token-form").hidden = true;
    $("files").focus();
    describe();
  });

  // ---- the model

  const percent = (p) => (p >= 0.995 && p < 1 ? "> 99 %" : p > 0 && p < 0.005 ? "< 1 %" : `${Math.round(100 * p)} %`);

  async function describe() {
    try {
      model = await ask("v1/model");
    } catch (error) {
      if ($("token-form").hidden) $("model-facts").textContent = error.message;
      return;
    }
    const figures = model.figures || {};
    $("model-name").textContent = `${model.strategy}, ${model.backbone}`;
    const classes = model.classes.length > 6 ? `${model.classes.slice(0, 5).join(", ")} and ${model.classes.length - 5} more` : model.classes.join(", ");
    $("model-facts").textContent = `It tells apart ${classes}.${accuracy(figures)}`;
    $("limits").textContent = `JPEG, PNG, WebP, GIF, BMP or TIFF, up to ${Math.floor(model.limits.bytes / 1048576) || 1} MB each. Photos are not kept.`;
    const facts = [
      ["Model", model.id],
      ["Strategy", model.strategy],
      ["Network", `${model.backbone}, ${model.line} of ${model.layers} layers frozen`],
      ["Photos as it sees them", `${model.image_size} × ${model.image_size} pixels`],
      ["frostline", model.frostline],
    ];
    $("figures").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", String(value))]));
    $("classes").replaceChildren(...model.classes.map((name) => element("li", "", name)));
    $("card").textContent = model.card.replace(/^---\n[^]*?\n---\n+/, "") || "This bundle has none.";
    $("about").hidden = false;
  }

  function accuracy(figures) {
    if (typeof figures.accuracy !== "number") return "";
    const range = Array.isArray(figures.accuracy_ci) ? ` (95 % interval ${figures.accuracy_ci.map((x) => (100 * x).toFixed(1)).join(" to ")})` : "";
    const rendered = figures.rendered ? " rendered by code" : "";
    return ` Right on ${(100 * figures.accuracy).toFixed(1)} %${range} of ${figures.photos} ${figures.reported_on} photos${rendered}.`;
  }

  // ---- photos

  function element(tag, name, text) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function add(files) {
    const cards = [...files].map((file) => {
      const card = $("result").content.firstElementChild.cloneNode(true);
      const part = (name) => card.querySelector(name);
      card.classList.add("waiting");
      part(".name").textContent = file.name || "photo";
      part(".verdict").textContent = "Waiting…";
      card.address = URL.createObjectURL(file);
      const photo = part(".photo");
      photo.addEventListener("error", () => { photo.hidden = true; part(".no-preview").hidden = false; });
      photo.alt = file.name || "photo";
      photo.src = card.address;
      queue.push({ file, card, part });
      return card;
    });
    $("results").prepend(...cards);
    for (const old of [...$("results").children].slice(KEPT)) drop(old);
    counted();
    next();
  }

  function drop(card) {
    URL.revokeObjectURL(card.address);
    card.remove();
  }

  function counted() {
    const count = $("results").children.length;
    $("results-bar").hidden = !count;
    $("count").textContent = count === 1 ? "1 photo" : `${count} photos`;
  }

  function next() {
    while (active < AT_ONCE && queue.length) {
      const item = queue.shift();
      if (!item.card.isConnected) continue;
      active++;
      classify(item).finally(() => { active--; next(); });
    }
  }

  async function classify({ file, card, part }) {
    part(".verdict").textContent = "Looking…";
    const name = file.name || "photo";
    try {
      if (model && file.size > model.limits.bytes) throw new Error(`This file is too large: at most ${Math.floor(model.limits.bytes / 1048576)} MB are taken.`);
      const promised = (model?.thresholds || []).some((row) => row.precision >= PRECISION) ? `&precision=${PRECISION}` : "";
      const answer = await ask(`v1/predict?top_k=5&neighbours=${NEAR}${promised}`, {
        method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" },
      });
      show(answer.results[0], file, card, part);
      say(`${name}: ${answer.results[0].predicted}, ${percent(answer.results[0].confidence)}`);
    } catch (error) {
      card.classList.add("failed");
      part(".verdict").textContent = error.message;
      say(`${name}: ${error.message}`);
    }
    card.classList.remove("waiting");
    document.body.dataset.done = String(++done);
  }

  function say(text) { $("said").textContent = text; }

  function show(result, file, card, part) {
    part(".verdict").replaceChildren(result.predicted, " ", element("span", "share", percent(result.confidence)));
    part(".shares").replaceChildren(...result.top.map((share) => {
      const row = element("li");
      const track = element("div", "track");
      const fill = element("div", "fill");
      track.setAttribute("aria-hidden", "true");
      fill.style.width = `${100 * share.confidence}%`;
      track.append(fill);
      row.append(element("span", "class", share.class), track, element("span", "percent", percent(share.confidence)));
      return row;
    }));
    if (result.unsure) {
      part(".unsure").textContent = `Unsure: of photos like this, fewer than ${100 * PRECISION} % may be told right.`;
      part(".unsure").hidden = false;
    }
    neighbours(result, part);
    const why = part(".why");
    why.hidden = !(model && model.explanations);
    why.addEventListener("click", () => explain(file, result, part));
  }

  function neighbours(result, part) {
    const near = result.neighbours || [];
    if (!near.length) return;
    const same = near.filter((n) => n.class === result.predicted).length;
    part(".near h4").textContent = `${same} of the ${near.length} training photos most like it are ${result.predicted}`;
    part(".near ol").replaceChildren(...near.map((n) => {
      const row = element("li");
      const path = element("span", "path", n.path.split("/").pop());
      path.title = n.path;
      row.append(element("span", n.class === result.predicted ? "class" : "class other", n.class), path);
      return row;
    }));
    part(".near p").hidden = near[0].similarity < KNOWN;
    part(".near").hidden = false;
  }

  async function explain(file, result, part) {
    const why = part(".why");
    const overlay = part(".overlay");
    const note = part(".why-note");
    const shown = (yes) => {
      overlay.hidden = !yes;
      note.hidden = !yes;
      part(".photo").classList.toggle("under", yes);
      why.setAttribute("aria-pressed", String(yes));
      why.textContent = yes ? "Show the photo" : "Show where it looked";
    };
    if (overlay.src) { shown(overlay.hidden); return; }
    why.disabled = true;
    why.textContent = "Drawing… (the first one takes some seconds)";
    try {
      const told = await ask("v1/explain", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
      overlay.src = told.overlay;
      overlay.alt = `The same photo; the places that speak for ${told.class} are coloured.`;
      note.textContent = `Coloured: what speaks for ${told.class}. Grey: what does not. (${told.method})`;
      shown(true);
      say(overlay.alt);
    } catch (error) {
      note.textContent = error.message;
      note.hidden = false;
      why.textContent = "Show where it looked";
    }
    why.disabled = false;
    why.focus();
  }

  // ---- ways in: choose, camera, drop, paste

  for (const id of ["files", "camera"]) {
    $(id).addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
    $(id).addEventListener("keydown", (event) => { // browsers open the chooser on Space alone
      if (event.key === "Enter") { event.preventDefault(); event.target.click(); }
    });
  }
  let inside = 0;
  const over = (yes) => $("drop").classList.toggle("over", yes);
  addEventListener("dragenter", () => { inside++; over(true); });
  addEventListener("dragleave", () => { inside = Math.max(0, inside - 1); over(inside > 0); });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    inside = 0;
    over(false);
    if (event.dataTransfer?.files.length) add(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => { if (event.clipboardData?.files.length) add(event.clipboardData.files); });
  $("clear").addEventListener("click", () => {
    queue.length = 0;
    for (const card of [...$("results").children]) drop(card);
    counted();
    $("files").focus();
  });

  if (navigator.maxTouchPoints > 0) document.body.classList.add("touch");
  describe();
})();
