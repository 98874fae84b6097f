"""The judging half of demo.sh: reads one answer, says whether it is right and what it cost.

usage: demo_check.py classify|similar|unrelated|filetype=LABEL HEAD BODY COSTS     judges an answer, appends its cost
       demo_check.py bill BILL.json COSTS                                          compares the bill with the costs
       demo_check.py subscribe CHECKOUT-URL SERVER-URL AUTH        clicks on the page's button, as a person would
       demo_check.py invoice TWIN-FOLDER BILL.json                 lets the period end, compares invoice and bill

Money is counted in whole picodollars (10^-12): binary fractions would make an exact comparison worthless.
"""

import json
import os
import re
import sys
import time
import urllib.parse
import urllib.request

BOLD, DIM, GREEN, RED, END = ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m")
if not os.environ.get("DEMO_COLOR"):
    BOLD = DIM = GREEN = RED = END = ""

# ImageNet: tabby, tiger cat, Persian cat, Siamese cat, Egyptian cat.
DOMESTIC_CATS = range(281, 286)


def fail(expected, seen):
    print(f"  {RED}wrong{END}\n    expected: {expected}\n    seen:     {seen}")
    sys.exit(1)


def pico(text):
    """'0.000000001100 USD' -> (1100, 'USD')"""
    match = re.fullmatch(r"(\d+)(?:\.(\d{1,12}))? ([A-Z]{3})", text)
    if not match:
        fail("a cost such as '0.000000001100 USD'", repr(text))
    whole, fraction, currency = match.groups()
    return int(whole) * 10**12 + int((fraction or "").ljust(12, "0")), currency


def money(amount, currency):
    return f"{amount // 10**12}.{amount % 10**12:012d} {currency}"


def headers(path):
    """The answer's own header lines (and trailers), names in lower case."""
    found, status = {}, ""
    with open(path, encoding="latin-1") as file:
        for line in file.read().splitlines():
            if line.startswith("HTTP/"):
                found, status = {}, line
            elif ":" in line:
                name, value = line.split(":", 1)
                found[name.strip().lower()] = value.strip()
    return status, found


def judge(kind, answer):
    """The line to show; ends the program on a wrong answer."""
    if kind == "classify":
        top = answer["top"]
        if len(top) != 5 or top[0]["index"] not in DOMESTIC_CATS:
            fail("five classes, a domestic cat first (index 281 to 285)", json.dumps(answer))
        return ", ".join(f"{t['label'].split(',')[0]} {t['score']:.2f}" for t in top[:3])
    if kind in ("similar", "unrelated"):
        similarity = answer["similarity"]
        if kind == "similar" and not 0.6 < similarity <= 1.0001:
            fail("a similarity above 0.6", similarity)
        if kind == "unrelated" and not -1.0001 <= similarity < 0.2:
            fail("a similarity below 0.2", similarity)
        return f"{similarity:.3f}"
    label = kind.removeprefix("filetype=")
    if answer["label"] != label:
        fail(f"the label {label!r}", json.dumps(answer))
    return f"{answer['label']} ({answer['description']}, {answer['mime']}) {answer['score']:.2f}"


def call(kind, head, body, costs):
    status, found = headers(head)
    with open(body, "rb") as file:
        raw = file.read()
    if " 200" not in status:
        fail("HTTP 200", f"{status or 'no answer'}: {raw[:400]!r}")
    try:
        line = judge(kind, json.loads(raw))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        fail(f"an answer of the documented form ({error!r})", repr(raw[:400]))
    for name in ("x-wasmeter-invocation", "x-wasmeter-fuel", "x-wasmeter-device-ns", "x-wasmeter-cost"):
        if not found.get(name):
            fail(f"the header {name}, since the caller holds the tenant's token", ", ".join(sorted(found)))
    fuel, device = int(found["x-wasmeter-fuel"]), int(found["x-wasmeter-device-ns"])
    cost, currency = pico(found["x-wasmeter-cost"])
    if fuel <= 0 or device <= 0 or cost <= 0:
        fail("fuel, device time and cost above 0", f"fuel {fuel}, device {device} ns, {money(cost, currency)}")
    print(f"  {GREEN}{BOLD}{line}{END}")
    print(f"  {DIM}fuel {fuel:,}   device {device / 1e6:.3f} ms   cost {money(cost, currency)}{END}")
    with open(costs, "a", encoding="ascii") as file:
        file.write(f"{cost} {currency}\n")


def bill(path, costs):
    """Exits 0 when the totals agree, 1 when they cannot, 2 when the bill may still be catching up."""
    with open(costs, encoding="ascii") as file:
        rows = [line.split() for line in file]
    currencies = {currency for _, currency in rows}
    expected = sum(int(amount) for amount, _ in rows)
    with open(path, encoding="utf-8") as file:
        answer = json.load(file)
    seen, currency = int(answer["list_total_pico"]), answer["currency"].upper()
    if currencies == {currency} and seen == expected:
        print(f"  {GREEN}{len(rows)} calls, {money(expected, currency)}: the bill's list-price total is the same{END}")
        return
    if currencies == {currency} and seen < expected:
        print(f"  the bill says {money(seen, currency)}, the {len(rows)} calls' headers {money(expected, currency)}")
        sys.exit(2)
    fail(f"a list-price total of {money(expected, ' or '.join(sorted(currencies)))}", money(seen, currency))


def fetch(url, data=None, headers=None):
    """The answer's body; a proxy of the environment cannot reach this machine's loopback."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, data, headers or {}), timeout=30) as answer:
        return answer.read().decode()


def until(what, condition):
    """Waits for what takes moments."""
    end = time.monotonic() + 60
    while not (found := condition()):
        if time.monotonic() > end:
            fail(what, "nothing of the kind within a minute")
        time.sleep(0.1)
    return found


def subscribe(checkout, server, auth):
    if 'value=pm_card_visa' not in fetch(checkout):
        fail("a page with a button to subscribe", checkout)
    fetch(checkout, b"card=pm_card_visa")
    with open(auth, encoding="ascii") as file:
        name, value = file.read().strip().split(": ", 1)
    standing = lambda: json.loads(fetch(f"{server}/api/v1/tenants/dev/billing", headers={name: value}))
    until("an active subscription", lambda: standing()["state"] == "active")


# How many of the ledger's units are one of Stripe's.
UNITS = {"fuel": 10**6, "cpu_time": 10**3, "gpu_time": 10**3}


def invoice(folder, bill_path):
    def read(name):
        with open(os.path.join(folder, name), encoding="ascii") as file:
            return file.read().strip()

    url, auth = read("twin-url"), {"authorization": f"Bearer {read('secret-key')}"}
    get = lambda path: json.loads(fetch(url + path, headers=auth))
    tell = lambda path, body: fetch(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with open(bill_path, encoding="utf-8") as file:
        ledger = {line["meter"]: line for line in json.load(file)["lines"] if int(line["rate_pico"])}
    owed = {meter: line["quantity"] // UNITS.get(meter, 1) for meter, line in ledger.items()}
    owed = {meter: quantity for meter, quantity in owed.items() if quantity}

    def sent():
        seen = {}
        for event in get("/_twin/meter-events")["events"]:
            meter = event["event_name"].removeprefix("wasmeter_")
            seen[meter] = seen.get(meter, 0) + event["value"]
        return seen == owed

    until(f"usage of {owed} at the stand-in", sent)
    subscription = get("/v1/subscriptions?limit=1")["data"][0]
    end = subscription["items"]["data"][0]["current_period_end"]
    ahead = end + 4000 - int(time.time())
    tell("/_twin/faults", {"signature_skew_s": ahead})
    with open(os.path.join(folder, "ahead"), "w", encoding="ascii") as file:
        file.write(str(ahead))
    tell("/_twin/clock", {"set": end + 4000})

    def final():
        found = get(f"/v1/invoices?subscription={subscription['id']}&limit=100")["data"]
        return next((i for i in found if i["period_end"] == end and i["status"] == "paid"), None)

    final = until("an invoice that is paid", final)
    meters = {meter["id"]: meter["event_name"].removeprefix("wasmeter_") for meter in get("/v1/billing/meters")["data"]}
    shown = {}
    for line in get(f"/v1/invoices/{final['id']}/lines?limit=100")["data"]:
        price = get(f"/v1/prices/{line['pricing']['price_details']['price']}")
        if line["quantity"]:
            shown[meters[price["recurring"]["meter"]]] = line["quantity"]
            print(f"  {line['description']}   {line['amount']} cents")
    if shown != owed:
        fail(owed, shown)
    print(f"  {GREEN}invoice {final['number']}, {final['status']}, {final['total']} cents: the quantities are the ledger's{END}")
    print(f"  {DIM}{final['hosted_invoice_url']}{END}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if len(arguments) == 4 and arguments[0] != "subscribe":
        call(*arguments)
    elif len(arguments) == 3 and arguments[0] == "bill":
        bill(*arguments[1:])
    elif len(arguments) == 4 and arguments[0] == "subscribe":
        subscribe(*arguments[1:])
    elif len(arguments) == 3 and arguments[0] == "invoice":
        invoice(*arguments[1:])
    else:
        sys.exit(__doc__)
