// Lets headless Chromium classify pictures on page.html: in_browser.mjs CHROMIUM URL SCREENSHOT PICTURE...
import { chromium } from "playwright-core";

const [executablePath, url, screenshot, ...pictures] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath,
  args: [
    "--no-sandbox", // the tests of a container run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
try {
  const page = await browser.newPage({ viewport: { width: 410, height: 560 }, deviceScaleFactor: 1 });
  page.on("pageerror", (error) => console.error(String(error)));
  page.on("console", (message) => console.error(message.text()));
  await page.goto(url);
  await page.waitForFunction(() => "classify" in window);
  const answers = [];
  for (const picture of pictures) answers.push(await page.evaluate((file) => window.classify(file), picture));
  await page.locator("#picture").evaluate((image) => image.decode());
  await page.screenshot({ path: screenshot });
  console.log(JSON.stringify(answers.map((ranked) => Object.fromEntries(ranked.map((each) => [each.label, each.probability])))));
} finally {
  await browser.close();
}
