(() => {
  "use strict";
  const { columns, decisions, key } = JSON.parse(document.getElementById("data").textContent);
  const sets = [...document.querySelectorAll("fieldset[data-path]")];
  const decided = new Map(decisions.map((d) => [d.path, d]));
  const bar = document.getElementById("bar"), said = document.getElementById("said");

  // A reload, or the browser's crash, must not cost an hour's decisions. Some browsers keep nothing for pages from disk.
  try {
    const kept = JSON.parse(localStorage.getItem(key));
    if (Array.isArray(kept)) { decided.clear(); for (const d of kept) decided.set(d.path, d); }
  } catch { /* then they last as long as the page */ }
  const keep = () => { try { localStorage.setItem(key, JSON.stringify([...decided.values()])); } catch { /* as above */ } };

  const show = () => {
    for (const set of sets) {
      const d = decided.get(set.dataset.path), action = d ? d.action : "keep";
      const wanted = set.querySelector(`input[value="${action}"]`);
      if (wanted) wanted.checked = true;
      const select = set.querySelector("select");
      if (select && action === "relabel") select.value = d.label;
    }
    const all = [...decided.values()], out = all.filter((d) => d.action === "exclude").length;
    said.textContent = `${out} to leave out, ${all.length - out} to relabel`;
  };

  for (const set of sets) {
    set.addEventListener("change", (event) => {
      const select = set.querySelector("select"), path = set.dataset.path;
      if (event.target === select) set.querySelector('input[value="relabel"]').checked = true;
      const action = set.querySelector("input:checked").value;
      if (action === "keep") decided.delete(path);
      else decided.set(path, {
        path, action, label: action === "relabel" ? select.value : "",
        why: `decided by hand (${set.dataset.why})`, confidence: Number(set.dataset.confidence),
      });
      keep();
      show();
    });
  }

  const field = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  document.getElementById("save").addEventListener("click", () => {
    const rows = [columns, ...[...decided.values()].map((d) => columns.map((c) => d[c]))];
    const text = rows.map((row) => row.map(field).join(",")).join("\n") + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "exclude.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
  document.getElementById("clear").addEventListener("click", () => { decided.clear(); keep(); show(); });
  bar.hidden = !sets.length;
  show();
})();
