"""The twin and our client held against Stripe's own Python library.

usage: check_stripe.py [PATH-OF-wasmeter-billing]

The library calls the twin as it would call Stripe; its `construct_event` reads the twin's webhooks; and what our own
client sent (kept by the test `client` of billing/crates/twin in the target folder) is held against the library's parameter types.
"""

import builtins
import http.client
import http.server
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import typing

import stripe
import typing_extensions

here = pathlib.Path(__file__).resolve().parent
target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", here.parent.parent / "target"))
binary = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else target / "release" / "wasmeter-billing"

failures = 0


def check(what, holds, note=""):
    global failures
    failures += not holds
    print(f"{'ok  ' if holds else 'FAIL'} {what} {note}", flush=True)


def refused(what, error, call, code=None):
    try:
        call()
    except error as refusal:
        check(what, code is None or refusal.code == code, f"({refusal.code}: {refusal.user_message or refusal})")
    else:
        check(what, False, "(it was let through)")


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes webhooks."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        taken.append((self.headers["stripe-signature"], body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


taken = []
receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=receiver.serve_forever, daemon=True).start()


def waited(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def control(method, what, body=None):
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request(method, f"/_twin/{what}", json.dumps(body) if body is not None else None)
    return json.loads(connection.getresponse().read())


def events(kind):
    return [event for event in map(json.loads, (body for _, body in taken)) if event["type"] == kind]


def click(url, form):
    """A click on a page of the twin's: the address that it leads to."""
    path = url.removeprefix(f"http://{address}")
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("POST", path, form, {"content-type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.getheader("location")


def page(url):
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", url.removeprefix(f"http://{address}"))
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def the_library_calls_the_twin():
    client = stripe.StripeClient(
        (data / "secret-key").read_text().strip(),
        base_addresses={"api": f"http://{address}"},
        max_network_retries=0,
        http_client=stripe.UrllibClient(),
    )
    v1 = client.v1
    product = v1.products.create({"name": "usage", "id": "p_usage"})
    meter = v1.billing.meters.create(
        {
            "display_name": "Requests",
            "event_name": "requests",
            "default_aggregation": {"formula": "sum"},
            "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
            "value_settings": {"event_payload_key": "value"},
        }
    )
    price = v1.prices.create(
        {
            "currency": "usd",
            "product": product.id,
            "unit_amount_decimal": "0.25",
            "recurring": {"interval": "month", "meter": meter.id, "usage_type": "metered"},
            "lookup_key": "requests_1",
        }
    )
    check("prices by lookup key", [p.id for p in v1.prices.list({"lookup_keys": ["requests_1"]}).data] == [price.id])
    clock = v1.test_helpers.test_clocks.create({"frozen_time": 1_790_000_000 // 3600 * 3600})
    start = clock.frozen_time
    customer = v1.customers.create(
        {"name": "t1", "metadata": {"tenant": "t1"}, "test_clock": clock.id, "payment_method": "pm_card_visa"}
    )
    check("metadata", customer.metadata["tenant"] == "t1")
    subscription = v1.subscriptions.create({"customer": customer.id, "items": [{"price": price.id}]})
    check("subscription", subscription.status == "active" and subscription["items"].data[0].price.id == price.id)
    for n, value in enumerate(["7", "11", "24983"]):
        v1.billing.meter_events.create(
            {
                "event_name": "requests",
                "payload": {"stripe_customer_id": customer.id, "value": value},
                "identifier": f"e{n}",
                "timestamp": start + n,
            }
        )
    refused(
        "a second event of one identifier",
        stripe.InvalidRequestError,
        lambda: v1.billing.meter_events.create(
            {"event_name": "requests", "payload": {"stripe_customer_id": customer.id, "value": "1"}, "identifier": "e0"}
        ),
    )
    summaries = v1.billing.meters.event_summaries.list(
        meter.id,
        {"customer": customer.id, "start_time": start, "end_time": start + 3600, "value_grouping_window": "hour"},
    )
    check("summaries", [s.aggregated_value for s in summaries.data] == [25001.0])
    refused(
        "a window that lies askew",
        stripe.InvalidRequestError,
        lambda: v1.billing.meters.event_summaries.list(
            meter.id, {"customer": customer.id, "start_time": start + 1, "end_time": start + 3600}
        ),
    )
    preview = v1.invoices.create_preview({"customer": customer.id})
    check("preview", preview.total == 6250, f"({preview.total})")
    v1.test_helpers.test_clocks.advance(clock.id, {"frozen_time": start + 32 * 86400})
    drafts = v1.invoices.list({"subscription": subscription.id, "status": "draft"}).data
    check("a draft at the end of the period", [d.total for d in drafts] == [6250])
    check("its webhook", waited(lambda: any(e["data"]["object"]["id"] == drafts[0].id for e in events("invoice.created"))))
    held = v1.invoices.update(drafts[0].id, {"auto_advance": False})
    check("held", held.status == "draft" and held.auto_advance is False)
    paid = v1.invoices.finalize_invoice(drafts[0].id, {"auto_advance": True})
    line = paid.lines.data[0]
    check("finalised and paid", (paid.status, paid.amount_paid, line.quantity, line.amount) == ("paid", 6250, 25001, 6250))
    dearer = v1.prices.create(
        {
            "currency": "usd",
            "product": product.id,
            "unit_amount_decimal": "0.5",
            "recurring": {"interval": "month", "meter": meter.id, "usage_type": "metered"},
        }
    )
    item = subscription["items"].data[0].id
    moved = v1.subscriptions.update(
        subscription.id, {"items": [{"id": item, "price": dearer.id}], "proration_behavior": "none"}
    )
    check("another price", [(i.id, i.price.id) for i in moved["items"].data] == [(item, dearer.id)])
    refused(
        "a quantity of a metered price",
        stripe.InvalidRequestError,
        lambda: v1.subscriptions.update(subscription.id, {"items": [{"id": item, "price": price.id, "quantity": 2}]}),
    )
    later = v1.subscriptions.retrieve(subscription.id, {"expand": ["latest_invoice"]})
    check("expanded", later.latest_invoice.id == paid.id)
    end = v1.subscriptions.cancel(subscription.id, {"invoice_now": True})
    check("cancelled", end.status == "canceled")
    refused("an unknown customer", stripe.InvalidRequestError, lambda: v1.customers.retrieve("cus_none"), "resource_missing")
    refused(
        "an unknown parameter",
        stripe.InvalidRequestError,
        lambda: v1.customers.create({"nmae": "x"}),
        "parameter_unknown",
    )
    first = v1.customers.create({"name": "once"}, {"idempotency_key": "k1"})
    again = v1.customers.create({"name": "once"}, {"idempotency_key": "k1"})
    check("one key, one customer", first.id == again.id)
    refused(
        "one key, two bodies",
        stripe.IdempotencyError,
        lambda: v1.customers.create({"name": "twice"}, {"idempotency_key": "k1"}),
    )
    refused(
        "another key",
        stripe.AuthenticationError,
        lambda: stripe.StripeClient(
            "sk_test_other", base_addresses={"api": f"http://{address}"}, max_network_retries=0, http_client=stripe.UrllibClient()
        ).v1.customers.list(),
    )
    names = [c.id for c in v1.customers.list({"limit": 1}).auto_paging_iter()]
    check("pages", len(names) == len(set(names)) == 1, f"({len(names)})")

    buyer = v1.customers.create({"name": "t2"})
    session = v1.checkout.sessions.create(
        {
            "mode": "subscription",
            "customer": buyer.id,
            "line_items": [{"price": price.id}],
            "success_url": "http://127.0.0.1:9/done?s={CHECKOUT_SESSION_ID}",
            "cancel_url": "http://127.0.0.1:9/back",
        }
    )
    check("the checkout page", page(session.url)[0] == 200)
    status, to = click(session.url, "card=pm_card_visa")
    check("a click on it", (status, to) == (303, f"http://127.0.0.1:9/done?s={session.id}"), f"({status} {to})")
    done = v1.checkout.sessions.retrieve(session.id)
    check("checkout is complete", done.status == "complete" and done.subscription is not None)
    check("its webhook", waited(lambda: any(e["data"]["object"]["id"] == session.id for e in events("checkout.session.completed"))))
    portal = v1.billing_portal.sessions.create({"customer": buyer.id, "return_url": "http://127.0.0.1:9/"})
    status, text = page(portal.url)
    check("the portal page", status == 200 and "Cancel at the end" in text)
    click(portal.url, f"do=cancel&subscription={done.subscription}")
    check("cancelled there", v1.subscriptions.retrieve(done.subscription).cancel_at_period_end)
    v1.billing.meter_events.create({"event_name": "nothing", "payload": {"stripe_customer_id": buyer.id, "value": "1"}})
    check("a thin event", waited(lambda: events("v1.billing.meter.no_meter_found")))
    thin = client.v2.core.events.retrieve(events("v1.billing.meter.no_meter_found")[0]["id"])
    check("fetched", "1 invalid event" in thin.data.developer_message_summary)


def the_library_reads_webhooks():
    secret = (data / "webhook-secret").read_text().strip()
    snapshots = [(signature, body) for signature, body in taken if json.loads(body)["object"] == "event"]
    read = [stripe.Webhook.construct_event(body, signature, secret).id for signature, body in snapshots]
    check("construct_event reads every webhook", len(read) == len(snapshots) > 10, f"({len(read)})")
    signature, body = snapshots[0]
    for what, bad_signature, bad_body in [
        ("another body", signature, body + b" "),
        ("another signature", signature.replace("v1=", "v1=0"), body),
    ]:
        refused(what, stripe.SignatureVerificationError, lambda s=bad_signature, b=bad_body: stripe.Webhook.construct_event(b, s, secret))
    # The twin's signatures, which our verifier is tested with, are those that the library computes, to the letter.
    now = int(time.time())
    theirs = stripe.WebhookSignature._compute_signature(f"{now}.{{}}", secret)
    check("signatures", control("POST", "sign", {"body": "{}", "time": now})["signature"] == f"t={now},v1={theirs}")
    old = control("POST", "sign", {"body": "{}", "time": int(time.time()) - 301})["signature"]
    refused("an old one", stripe.SignatureVerificationError, lambda: stripe.Webhook.construct_event("{}", old, secret))


# ---- what our client sends, against the parameter types ----


def unwrapped(annotation):
    """The types that a value may have, without what only says how it is given."""
    origin = typing.get_origin(annotation)
    if origin in (typing_extensions.NotRequired, typing_extensions.Required, typing.Required, typing.NotRequired):
        return unwrapped(typing.get_args(annotation)[0])
    if origin is typing.Union or str(origin) == "<class 'types.UnionType'>":
        return [one for part in typing.get_args(annotation) for one in unwrapped(part)]
    return [annotation]


class Unknown:
    """A type that is there for type checkers only; every such has another beside it."""

    def __class_getitem__(cls, _):
        return cls


class Names(dict):
    """What annotations name: of their own module, or not known to it while it runs."""

    def __init__(self, module):
        super().__init__()
        self.known = {**vars(builtins), **vars(sys.modules[module])}

    def __contains__(self, name):
        return True

    def __missing__(self, name):
        return self.known.get(name, Unknown)


def wrong(value, annotation, at):
    """Why a form's value, whose leaves are texts, is none of a type; empty if it is."""
    whys = []
    for one in unwrapped(annotation):
        origin = typing.get_origin(one)
        if typing_extensions.is_typeddict(one):
            if not isinstance(value, dict):
                whys.append(f"{at} is no object")
                continue
            hints = typing_extensions.get_type_hints(one, localns=Names(one.__module__), include_extras=True)
            why = [f"{at}.{name} is unknown" for name in value if name not in hints]
            why += [w for name, inner in value.items() if name in hints for w in wrong(inner, hints[name], f"{at}.{name}")]
            required = getattr(one, "__required_keys__", frozenset())
            why += [f"{at}.{name} is missing" for name in hints if name in required and name not in value]
        elif origin is list:
            inner = typing.get_args(one)[0]
            why = [w for n, item in enumerate(value) for w in wrong(item, inner, f"{at}.{n}")] if isinstance(value, list) else [f"{at} is no list"]
        elif origin is dict:
            why = [] if isinstance(value, dict) and all(isinstance(v, str) for v in value.values()) else [f"{at} is no map"]
        elif origin is typing.Literal or origin is typing_extensions.Literal:
            why = [] if value in typing.get_args(one) else [f"{at}: {value} is none of {typing.get_args(one)}"]
        elif one is int:
            why = [] if isinstance(value, str) and value.lstrip("-").isdigit() else [f"{at}: {value} is no integer"]
        elif one is bool:
            why = [] if value in ("true", "false") else [f"{at}: {value} is no boolean"]
        elif one in (str, float) or "Decimal" in str(one):
            why = [] if isinstance(value, str) else [f"{at} is no text"]
        else:
            why = [f"{at}: {one} is not understood"]
        if not why:
            return []
        whys.append("; ".join(why))
    return [" or ".join(whys)]


# Method and path of what our client sends, with the module and the class of the parameters.
TYPES = [
    ("POST", "/v1/customers", "_customer_create_params", "CustomerCreateParams"),
    ("POST", "/v1/products", "_product_create_params", "ProductCreateParams"),
    ("POST", "/v1/prices", "_price_create_params", "PriceCreateParams"),
    ("GET", "/v1/prices", "_price_list_params", "PriceListParams"),
    ("POST", "/v1/billing/meters", "billing._meter_create_params", "MeterCreateParams"),
    ("GET", "/v1/billing/meters", "billing._meter_list_params", "MeterListParams"),
    ("GET", "/v1/billing/meters/*/event_summaries", "billing._meter_event_summary_list_params", "MeterEventSummaryListParams"),
    ("POST", "/v1/billing/meter_events", "billing._meter_event_create_params", "MeterEventCreateParams"),
    ("POST", "/v1/checkout/sessions", "checkout._session_create_params", "SessionCreateParams"),
    ("POST", "/v1/billing_portal/sessions", "billing_portal._session_create_params", "SessionCreateParams"),
    ("GET", "/v1/subscriptions", "_subscription_list_params", "SubscriptionListParams"),
    ("POST", "/v1/subscriptions/*", "_subscription_modify_params", "SubscriptionModifyParams"),
    ("GET", "/v1/invoices/*/lines", "_invoice_list_lines_params", "InvoiceListLinesParams"),
    ("POST", "/v1/invoices/*", "_invoice_modify_params", "InvoiceModifyParams"),
    ("POST", "/v1/invoices/*/finalize", "_invoice_finalize_invoice_params", "InvoiceFinalizeInvoiceParams"),
    ("POST", "/v1/invoiceitems", "_invoice_item_create_params", "InvoiceItemCreateParams"),
    ("POST", "/v1/invoiceitems/*", "_invoice_item_modify_params", "InvoiceItemModifyParams"),
    ("GET", "/v1/invoiceitems", "_invoice_item_list_params", "InvoiceItemListParams"),
    ("POST", "/v1/billing_portal/configurations", "billing_portal._configuration_create_params", "ConfigurationCreateParams"),
]


def our_requests_fit_the_types(path):
    requests = json.loads(path.read_text())["requests"]
    seen = set()
    for request in requests:
        params = request["params"] or {}
        parts = request["path"].split("/")
        for method, pattern, module, name in TYPES:
            wanted = pattern.split("/")
            fits = len(parts) == len(wanted) and all(w in ("*", p) for w, p in zip(wanted, parts))
            if method == request["method"] and fits:
                cls = getattr(importlib.import_module(f"stripe.params.{module}"), name)
                why = wrong(params, cls, "")
                if why or (method, pattern) not in seen:
                    check(f"ours: {method} {pattern}", not why, "; ".join(why))
                seen.add((method, pattern))
                break
        else:
            note = "has parameters and no type to hold them against" if params else "(no parameters)"
            check(f"ours: {request['method']} {request['path']}", not params, note)
    check("our requests were seen", len(seen) >= 8, f"({len(requests)} requests of {len(seen)} kinds)")


def a_planted_mistake_is_found():
    cls = importlib.import_module("stripe.params.billing._meter_event_create_params").MeterEventCreateParams
    good = {"event_name": "x", "payload": {"value": "1"}, "timestamp": "5"}
    check("the types find nothing in a good request", wrong(good, cls, "") == [])
    for bad in [{**good, "timestmap": "5"}, {**good, "timestamp": "soon"}, {"payload": {}}, {**good, "payload": "x"}]:
        check("the types find a planted mistake", wrong(bad, cls, "") != [], f"({wrong(bad, cls, '')})")


with tempfile.TemporaryDirectory() as folder:
    data = pathlib.Path(folder) / "data"
    hook = f"http://127.0.0.1:{receiver.server_port}/hook"
    command = [binary, "twin", "--data", data, "--seed", "7", "--webhook-url", hook]
    twin = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = twin.stdout.readline()
        assert line.startswith("twin listening on http://"), line
        address = line.strip().removeprefix("twin listening on http://")
        the_library_calls_the_twin()
        the_library_reads_webhooks()
        a_planted_mistake_is_found()
        requests = target / "tmp" / "twin-client-requests.json"
        if requests.exists():
            our_requests_fit_the_types(requests)
        else:
            check("our requests", False, f"({requests} is missing: run `cargo test -p wasmeter-twin --test client` first)")
    finally:
        twin.kill()
        twin.wait()

sys.exit(f"{failures} checks failed" if failures else 0)
