"""The dashboard in Chromium, over scripted workers: browser.py SERVER CHROMIUM SCREENSHOTS.

Every page is opened in two widths and two colour schemes. A page that logs an error, breaks its content policy, asks another host for anything,
or is wider than the window fails the test.
"""

import json
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

PATIENCE_MS = 20_000
WIDTHS = [1280, 400]


class Script:
    """The server, which does what it is told."""

    def __init__(self, program: str) -> None:
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        facts = json.loads(self.process.stdout.readline())
        self.origin, self.operator, self.tenant = f"http://{facts['address']}", facts["operator"], facts["tenant"]

    def tell(self, line: str) -> str:
        self.process.stdin.write(line + "\n")
        answer = self.process.stdout.readline().strip()
        assert answer, f"the server ended at {line!r}"
        return answer

    def close(self) -> None:
        self.process.stdin.close()
        code = self.process.wait(timeout=20)
        assert code == 0, f"the server ended with {code}"


class Watch:
    """Collects what no page may do."""

    def __init__(self, page: Page, origin: str) -> None:
        self.faults: list[str] = []
        # The browser itself logs the refused key of the test.
        page.on("console", lambda message: message.type == "error" and "401" not in message.text and self.faults.append(message.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("dialog", lambda dialog: (self.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: request.url.startswith(origin) or self.faults.append(f"asked {request.url}"))
        page.add_init_script("addEventListener('securitypolicyviolation', (event) => console.error('policy: ' + event.violatedDirective))")

    def check(self) -> None:
        assert not self.faults, self.faults


def fits(page: Page) -> None:
    width, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= window, f"{page.url} is {width} px wide in a window of {window} px"


def photograph(page: Page, folder: Path, name: str) -> None:
    """Every page in every width and scheme."""
    for scheme in ["light", "dark"]:
        page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            fits(page)
            page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    page.emulate_media(color_scheme="light")


def sign_in(page: Page, script: Script) -> None:
    page.goto(f"{script.origin}/dashboard")
    field = page.get_by_label("API key or token")
    expect(field).to_be_focused()
    field.fill(script.tenant)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("scope admin")
    page.get_by_label("API key or token").fill(script.operator)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert script.operator not in page.url
    expect(page.locator("#connection")).to_contain_text("live")


def overview(page: Page, script: Script, folder: Path, job: str) -> None:
    workers = page.locator("#workers")
    expect(workers).to_contain_text("gpu-node-one")
    expect(workers).to_contain_text("cuda:1")
    expect(workers).not_to_contain_text("witness")
    assert script.tell("lease one") == "witness"
    expect(workers).to_contain_text("witness")
    script.tell("cordon two")
    expect(workers).to_contain_text("cordoned")
    expect(page.get_by_role("img", name="Tasks now: 10 wait for other tasks, 1 wait for a worker, 1 run")).to_be_visible()
    photograph(page, folder, "overview")
    workers.get_by_role("link").first.click()
    expect(page.get_by_role("heading", name=f"Job {job}")).to_be_visible()


def bars(page: Page, count: int) -> None:
    expect(page.locator(".gantt .bar")).to_have_count(count)


def job_page(page: Page, script: Script, folder: Path) -> None:
    """A job with a lost device, another attempt, a fallback and progress, followed to its end without a reload."""
    loads = page.evaluate("performance.getEntriesByType('navigation').length + performance.timeOrigin")
    expect(page.locator(".label")).to_contain_text(HOSTILE_LABEL)
    bars(page, 1)
    script.tell("lost one cuda:0")
    expect(page.locator(".gantt .bar.failed")).to_have_count(1)
    assert script.tell("lease one") == "witness"
    bars(page, 2)
    expect(page.locator(".gantt .bar.retry")).to_have_count(1)
    script.tell("done one cpu the device failed: Xid 79")
    expect(page.locator(".gantt .bar.fallback")).to_have_count(1)
    total = page.get_by_role("progressbar", name="Progress of the job")
    assert script.tell("lease one") == "layer-0000"
    expect(page.locator("#share")).to_contain_text("17 %")
    expect(page.get_by_role("region", name="Notes")).to_contain_text("Xid 79")
    for layer in range(4):
        script.tell("done one cuda:0" if layer % 2 else "done one cuda:1")
        expect(page.locator("#share")).to_contain_text(f"{[33, 50, 67, 83][layer]} %")
        assert script.tell("lease one") == ("outer" if layer == 3 else f"layer-{layer + 1:04}")
    bars(page, 7)
    script.tell("done one cuda:1")
    expect(page.locator(".state-SUCCEEDED").first).to_be_visible()
    assert float(total.get_attribute("value")) == 1
    # Two devices and the processor; of the witness, the layers and the end, the last layer is on the critical path.
    expect(page.locator(".gantt .row")).to_have_count(3)
    expect(page.locator(".gantt .bar.critical")).to_have_count(3)
    first = page.locator(".gantt .bar").first
    first.focus()
    expect(page.locator("#bar-text")).to_contain_text(first.get_attribute("aria-label"))
    page.get_by_text("All 6 tasks").click()
    expect(page.get_by_role("row", name="layer-0003 layer DONE witness")).to_be_visible()
    assert loads == page.evaluate("performance.getEntriesByType('navigation').length + performance.timeOrigin"), "the page was not loaded again"
    photograph(page, folder, "job")


def jobs_page(page: Page, script: Script, folder: Path, job: str) -> None:
    page.get_by_role("link", name="Jobs").click()
    rows = page.locator("#jobs tbody tr")
    expect(rows).to_have_count(2)
    expect(page.get_by_role("link", name="Jobs")).to_have_attribute("aria-current", "page")
    newest = script.tell("job acme whole")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text(newest)
    expect(rows.first).to_contain_text(HOSTILE_LABEL)
    assert script.tell("lease one") == "prove"
    for layers, share in [("1", "25 %"), ("3", "75 %")]:
        script.tell(f"progress one {layers}")
        expect(rows.first).to_contain_text(share)
    photograph(page, folder, "jobs")
    rows.first.get_by_role("link").click()
    layer = page.get_by_role("progressbar", name="Progress of layer", exact=True)
    expect(layer).to_have_attribute("value", "0.75")
    script.tell("progress one 4")
    expect(layer).to_have_attribute("value", "1")
    page.go_back()
    page.get_by_label("State").select_option("SUCCEEDED")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text(job)
    page.get_by_label("State").select_option("")
    expect(rows).to_have_count(3)
    page.get_by_label("Tenant").fill("rival")
    page.keyboard.press("Enter")
    expect(rows).to_have_count(1)


def models_page(page: Page, folder: Path) -> None:
    page.get_by_role("link", name="Models").click()
    rows = page.locator("#models tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text(HOSTILE_LABEL)
    expect(rows.first).to_contain_text("READY")
    photograph(page, folder, "models")


def addresses(page: Page, script: Script, job: str) -> None:
    """Addresses can be opened by themselves; what is not there is said."""
    page.goto(f"{script.origin}/dashboard/#/jobs/acme/{job}")
    expect(page.get_by_role("heading", name=f"Job {job}")).to_be_visible()
    bars(page, 7)
    page.goto(f"{script.origin}/dashboard/#/jobs/acme/0199aaaa-0000-7000-8000-000000000000")
    expect(page.get_by_role("alert")).to_contain_text("no such job")
    page.goto(f"{script.origin}/dashboard/#/%")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.get_by_role("button", name="Forget the key").click()
    expect(page.get_by_label("API key or token")).to_be_visible()
    expect(page.locator("main")).not_to_contain_text("gpu-node-one")


HOSTILE_LABEL = "<img src=x onerror=\"document.title='taken'\">"


def main() -> None:
    program, chromium, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    script = Script(program)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        watch = Watch(page, script.origin)
        try:
            job = script.tell("job acme net")
            script.tell("job rival net")
            sign_in(page, script)
            overview(page, script, folder, job)
            job_page(page, script, folder)
            jobs_page(page, script, folder, job)
            models_page(page, folder)
            watch.check()
            addresses(page, script, job)
            assert "taken" not in page.title()
        except BaseException:
            page.screenshot(path=folder / "failed.png", full_page=True)
            print(watch.faults, file=sys.stderr)
            raise
        browser.close()
    script.close()
    print(f"the dashboard works in Chromium; screenshots are in {folder}")


if __name__ == "__main__":
    main()
