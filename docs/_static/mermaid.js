// Draws the page's Mermaid diagrams in the colours of the theme that is shown, and again when it changes.
(() => {
    const blocks = [...document.querySelectorAll("pre.mermaid")].map((element) => ({
        element,
        source: element.textContent,
    }));

    function isDark() {
        const theme = document.body.dataset.theme;
        return theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
    }

    let drawn = 0;
    let shown;
    async function draw() {
        if (shown === isDark()) return;
        shown = isDark();
        mermaid.initialize({
            startOnLoad: false,
            securityLevel: "strict",
            theme: shown ? "dark" : "neutral",
            // The dark theme's own is too light for its text.
            themeVariables: shown ? { edgeLabelBackground: "#2a2d31" } : {},
            fontFamily: getComputedStyle(document.body).fontFamily,
        });
        for (const { element, source } of blocks) {
            try {
                const { svg } = await mermaid.render(`mermaid-${drawn++}`, source);
                element.innerHTML = svg;
                const picture = element.querySelector("svg");
                picture.setAttribute("role", "img");
                // On a phone a wide diagram scrolls instead of shrinking until nobody can read it.
                picture.style.minWidth = `${Math.min(picture.viewBox.baseVal.width, 640)}px`;
                if (!picture.getAttribute("aria-labelledby")) picture.setAttribute("aria-label", "Diagram");
                element.dataset.drawn = shown ? "dark" : "light";
            } catch (error) {
                console.error(`a Mermaid diagram cannot be drawn: ${error.message}`);
            }
        }
    }

    let drawing = Promise.resolve();
    const again = () => (drawing = drawing.then(draw));
    again();
    new MutationObserver(again).observe(document.body, { attributes: true, attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
})();
