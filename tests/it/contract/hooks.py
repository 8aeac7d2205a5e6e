"""What schemathesis does otherwise here, and what it notes.

Nothing is sent beyond this machine, though the document's examples name hosts of others. No two things get one name, which
an export would refuse. What has the numbers 1 and 2 stays, so that there is something to look at and to change until the
end: what takes away is done to others. And the examples of what can be done only once, or only to what is in a certain
state, are about something that is made for them.
"""

import itertools
import json
import os

import requests
import schemathesis
from schemathesis.generation.meta import TestPhase

API = os.environ["HOOKMILL_API"]
SIGNED_IN = {"Authorization": f"Bearer {os.environ['HOOKMILL_ADMIN_TOKEN']}"}
SINK = os.environ["HOOKMILL_SINK"]
ANSWERS = open("answers", "a", buffering=1)
STAYS = ("1", "2")
OTHER = 4
TASK = "integration_management.collect_integration_metrics"

numbers = itertools.count()
lists = {}
held_backups = []


def ask(method, path, body=None):
    reply = requests.request(method, API + path, json=body, headers=SIGNED_IN, timeout=30)
    if not reply.ok:
        raise RuntimeError(f"{method} {path}: {reply.text}")
    return reply.json() if reply.content else None


def made(path, **members):
    return {"id": ask("POST", path, members)["id"]}


def name():
    return f"made {next(numbers)}"


def integration():
    return made("/integrations", name=name(), type="custom", environment="staging")


def webhook():
    return made("/webhooks", name=name(), integration_id=integration()["id"])


def destination():
    return made("/destinations", name=name(), settings={"url": f"http://{SINK}/"})


def subscription():
    of, to = integration()["id"], destination()["id"]
    return made("/subscriptions", name=name(), integration_id=of, destination_id=to)


def token():
    return made("/tokens", name=name(), role="viewer", expires_in="1h")


def replay():
    return made("/replays", query={"source": "dead_letters", "integration_id": 2})


def run():
    return {"task": TASK, **made(f"/tasks/{TASK}/run")}


def key():
    return made("/keys")


def deleted(collection, target):
    ask("DELETE", f"/{collection}/{target['id']}")
    return target


def changed():
    """An integration with the number of a version that it has no more."""
    target = integration()
    versions = ask("GET", f"/integrations/{target['id']}/versions")["items"]
    ask("PUT", f"/integrations/{target['id']}", {"description": "changed"})
    return {**target, "number": versions[0]["version"]}


def next_of(path):
    """One after the other of what the test left there, as long as there are any."""
    if path not in lists:
        lists[path] = ask("GET", path)["items"]
    return lists[path].pop() if lists[path] else {}


def release():
    """One backup is held at a time; it may be over already."""
    for number in held_backups:
        requests.delete(f"{API}/backup/{number}", headers=SIGNED_IN, timeout=30)
    held_backups.clear()
    return {}


def backup(sealed=False):
    """One that has told its end, and one of its segments."""
    release()
    held_backups.append(ask("POST", "/backup")["id"])
    segments = ask("POST", f"/backup/{held_backups[0]}/end")["segments"]
    return {"id": held_backups[0], "number": next(it["number"] for it in segments if it["sealed"] == sealed)}


# By operation: what its examples are about.
TARGETS = {
    "DELETE /api/v1/backup/{id}": backup,
    "DELETE /api/v1/destinations/{id}": destination,
    "DELETE /api/v1/integrations/{id}": integration,
    "DELETE /api/v1/subscriptions/{id}": subscription,
    "DELETE /api/v1/tokens/{id}": token,
    "DELETE /api/v1/webhooks/{id}": webhook,
    "DELETE /integration-management/integrations/{id}": integration,
    "DELETE /integration-management/webhooks/{id}": webhook,
    "GET /api/v1/backup/{id}/segments/{number}": backup,
    "GET /api/v1/backup/{id}/segments/{number}/index": lambda: backup(sealed=True),
    "GET /api/v1/backup/{id}/{part}": backup,
    "GET /api/v1/deadletters/{subscription_id}/{event_id}": lambda: next_of("/deadletters?subscription_id=3"),
    "GET /api/v1/rejections/{id}": lambda: next_of("/rejections?integration_id=1"),
    "GET /api/v1/rejections/{id}/explain": lambda: next_of("/rejections?integration_id=2"),
    "GET /api/v1/replays/{id}": replay,
    "GET /api/v1/tasks/{task}/runs/{id}": run,
    "GET /api/v1/tokens/{id}": token,
    "POST /api/v1/backup": release,
    "POST /api/v1/backup/{id}/{part}": backup,
    "POST /api/v1/deadletters/{subscription_id}/{event_id}/discard": lambda: next_of("/deadletters?subscription_id=4"),
    "POST /api/v1/deadletters/{subscription_id}/{event_id}/replay": lambda: next_of("/deadletters?subscription_id=2"),
    "POST /api/v1/events/{id}/replay": lambda: next_of("/events?integration_id=1"),
    "POST /api/v1/integrations/{id}/restore": lambda: deleted("integrations", integration()),
    "POST /api/v1/integrations/{id}/versions/{number}/rollback": changed,
    "POST /api/v1/keys/{id}/retire": key,
    "POST /api/v1/rejections/{id}/accept": lambda: next_of("/rejections?integration_id=3"),
    "POST /api/v1/replays/{id}/{command}": replay,
    "POST /api/v1/webhooks/{id}/restore": lambda: deleted("webhooks", webhook()),
}


def of_its_own(value):
    """With names that nothing else has, as long as they were."""
    if isinstance(value, list):
        return [of_its_own(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = {member: of_its_own(inner) for member, inner in value.items()}
    if isinstance(named.get("name"), str) and named["name"]:
        named["name"] = named["name"][:-1] + chr(0x4E00 + next(numbers) % 0x5000)
    return named


@schemathesis.hook
def before_call(context, case, kwargs):
    label, path = case.operation.label, case.path_parameters or {}
    if case.meta.phase.name is TestPhase.EXAMPLES and label in TARGETS:
        target = TARGETS[label]()
        path.update({part: target[part] for part in path if part in target})
    elif (case.method.upper() == "DELETE" or label.endswith("/rollback")) and str(path.get("id")) in STAYS:
        path["id"] = OTHER
    if isinstance(case.body, (dict, list)):
        text = json.dumps(case.body if label.endswith("/apply") else of_its_own(case.body))
        for host in ("billing", "ledger"):
            text = text.replace(f"https://{host}.example.com", f"http://{SINK}")
        case.body = json.loads(text)


@schemathesis.hook
def after_call(context, case, response):
    ANSWERS.write(f"{case.operation.label} {response.status_code}\n")
    if case.operation.label == "POST /api/v1/backup" and response.status_code == 201:
        held_backups.append(response.json()["id"])
