"use strict";
// The page of a served model. File names and the server's answers are never read as HTML: textContent only.
(() => {
  const $ = (id) => document.getElementById(id);
  const UPLOADS = 2; // at the same time
  const MOST_RESULTS = 60; // on the page
  const NEIGHBOURS = 5; // training photos shown with each result
  const PRECISION = 0.95; // share of the photos not marked unsure that is to be correct
  const SAME_PHOTO = 0.999; // a training photo this similar is the photo itself or a near-duplicate
  const BINARY = { "Content-Type": "application/octet-stream" };
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
      try { body = await response.json(); } catch { /* not JSON: the status is shown instead */ }
      if (response.ok && body) return body;
      if (response.status === 401) {
        askForToken();
        throw new Error("The server needs a token. Enter it above and try again.");
      }
      if (response.status === 503 && attempt < 4) {
        await new Promise((wake) => setTimeout(wake, 1000 * (Number(response.headers.get("Retry-After")) || 1)));
        continue;
      }
      throw new Error(sentence(body?.error?.message || `The server answered ${response.status}.`));
    }
  }

  const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

  function askForToken() {
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
    const listed = model.classes.length > 6 ? model.classes.slice(0, 5) : model.classes;
    const more = model.classes.length > listed.length ? ` and ${model.classes.length - listed.length} more` : "";
    $("model-facts").textContent = `Classes: ${listed.join(", ")}${more}.${accuracy(figures)}`;
    $("limits").textContent = `JPEG, PNG, WebP, GIF, BMP or TIFF, up to ${megabytes()} MB each. Photos are not stored.`;
    const facts = [
      ["Model", model.id],
      ["Strategy", model.strategy],
      ["Network", `${model.backbone}, ${model.line} of ${model.layers} layers frozen`],
      ["Input size", `${model.image_size} × ${model.image_size} pixels`],
      ["frostline version", model.frostline],
    ];
    const rows = facts.map(([name, value]) => [element("dt", "", name), element("dd", "", String(value))]);
    $("figures").replaceChildren(...rows.flat());
    $("classes").replaceChildren(...model.classes.map((name) => element("li", "", name)));
    $("card").textContent = model.card.replace(/^---\n[^]*?\n---\n+/, "") || "This bundle has no model card.";
    $("about").hidden = false;
  }

  const megabytes = () => Math.floor(model.limits.bytes / 1048576) || 1;

  function accuracy(figures) {
    if (typeof figures.accuracy !== "number") return "";
    const value = (x) => (100 * x).toFixed(1);
    const ends = Array.isArray(figures.accuracy_ci) ? figures.accuracy_ci.map(value).join("–") : "";
    const interval = ends && ` (95 % CI ${ends})`;
    const photos = `${figures.photos} ${figures.reported_on} photos`;
    const synthetic = figures.rendered ? " These are synthetic images." : "";
    return ` Accuracy: ${value(figures.accuracy)} %${interval} on ${photos}.${synthetic}`;
  }

  // ---- photos

  function element(tag, name, text) {
    const created = document.createElement(tag);
    if (name) created.className = name;
    if (text !== undefined) created.textContent = text;
    return created;
  }

  function add(files) {
    const cards = [...files].map((file) => {
      const card = $("result").content.firstElementChild.cloneNode(true);
      const part = (name) => card.querySelector(name);
      card.classList.add("waiting");
      part(".name").textContent = file.name || "photo";
      part(".prediction").textContent = "Waiting…";
      card.address = URL.createObjectURL(file);
      const photo = part(".photo");
      photo.addEventListener("error", () => { photo.hidden = true; part(".no-preview").hidden = false; });
      photo.alt = file.name || "photo";
      photo.src = card.address;
      queue.push({ file, card, part });
      return card;
    });
    $("results").prepend(...cards);
    for (const old of [...$("results").children].slice(MOST_RESULTS)) drop(old);
    updateCount();
    next();
  }

  function drop(card) {
    URL.revokeObjectURL(card.address);
    card.remove();
  }

  function updateCount() {
    const count = $("results").children.length;
    $("results-bar").hidden = !count;
    $("count").textContent = count === 1 ? "1 photo" : `${count} photos`;
  }

  function next() {
    while (active < UPLOADS && queue.length) {
      const item = queue.shift();
      if (!item.card.isConnected) continue;
      active++;
      classify(item).finally(() => { active--; next(); });
    }
  }

  async function classify({ file, card, part }) {
    part(".prediction").textContent = "Classifying…";
    const name = file.name || "photo";
    try {
      if (model && file.size > model.limits.bytes) {
        throw new Error(`This file is too large. The limit is ${megabytes()} MB.`);
      }
      const known = (model?.thresholds || []).some((row) => row.precision >= PRECISION);
      const precision = known ? `&precision=${PRECISION}` : "";
      const answer = await ask(`v1/predict?top_k=5&neighbours=${NEIGHBOURS}${precision}`, {
        method: "POST", body: file, headers: BINARY,
      });
      show(answer.results[0], file, card, part);
      announce(`${name}: ${answer.results[0].predicted}, ${percent(answer.results[0].confidence)}`);
    } catch (error) {
      card.classList.add("failed");
      part(".prediction").textContent = error.message;
      announce(`${name}: ${error.message}`);
    }
    card.classList.remove("waiting");
    document.body.dataset.done = String(++done);
  }

  function announce(text) { $("status").textContent = text; }

  function show(result, file, card, part) {
    const confidence = element("span", "confidence", percent(result.confidence));
    part(".prediction").replaceChildren(result.predicted, " ", confidence);
    part(".classes").replaceChildren(...result.top.map((share) => {
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
      const correct = `${100 * PRECISION} % of the predictions are correct`;
      part(".unsure").textContent = `Unsure: below the confidence from which ${correct}.`;
      part(".unsure").hidden = false;
    }
    neighbours(result, part);
    const button = part(".heat-map");
    button.hidden = !(model && model.explanations);
    button.addEventListener("click", () => explain(file, result, part));
  }

  function neighbours(result, part) {
    const near = result.neighbours || [];
    if (!near.length) return;
    const same = near.filter((n) => n.class === result.predicted).length;
    const title = `Class ${result.predicted}: ${same} of the ${near.length} most similar training photos`;
    part(".neighbours h4").textContent = title;
    part(".neighbours ol").replaceChildren(...near.map((n) => {
      const row = element("li");
      const path = element("span", "path", n.path.split("/").pop());
      path.title = n.path;
      row.append(element("span", n.class === result.predicted ? "class" : "class other", n.class), path);
      return row;
    }));
    part(".neighbours p").hidden = near[0].similarity < SAME_PHOTO;
    part(".neighbours").hidden = false;
  }

  async function explain(file, result, part) {
    const button = part(".heat-map");
    const overlay = part(".overlay");
    const note = part(".note");
    const shown = (yes) => {
      overlay.hidden = !yes;
      note.hidden = !yes;
      part(".photo").classList.toggle("under", yes);
      button.setAttribute("aria-pressed", String(yes));
      button.textContent = yes ? "Show photo" : "Show heat map";
    };
    if (overlay.src) { shown(overlay.hidden); return; }
    button.disabled = true;
    button.textContent = "Computing… (the first one takes some seconds)";
    try {
      const answer = await ask("v1/explain", { method: "POST", body: file, headers: BINARY });
      overlay.src = answer.overlay;
      overlay.alt = `Heat map: the places that raise the score of ${answer.class} are coloured.`;
      const method = `(${answer.method})`;
      note.textContent = `Coloured: places that raise the score of ${answer.class}. Grey: the others. ${method}`;
      shown(true);
      announce(overlay.alt);
    } catch (error) {
      note.textContent = error.message;
      note.hidden = false;
      button.textContent = "Show heat map";
    }
    button.disabled = false;
    button.focus();
  }

  // ---- how photos are added: choose, camera, drop, paste

  for (const id of ["files", "camera"]) {
    $(id).addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
    $(id).addEventListener("keydown", (event) => { // browsers open the file chooser on the Space key only
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
    updateCount();
    $("files").focus();
  });

  if (navigator.maxTouchPoints > 0) document.body.classList.add("touch");
  describe();
})();
