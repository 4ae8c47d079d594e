(() => {
  "use strict";
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const options = { renderer: "svg", actions: false, ast: true, defaultStyle: false, tooltip: { disableDefaultStyle: true } };
  document.documentElement.classList.add("js");
  for (const box of document.querySelectorAll("[data-chart]")) {
    vegaEmbed(box, specs[box.dataset.chart], options).catch((error) => {
      box.textContent = "This chart could not be drawn; the table holds its figures.";
      console.error(error);
    });
  }
  // Paper has no buttons: everything folded is printed unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const part of folded) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of folded) part.open = false; });
})();
