"""What schemathesis does otherwise here.

Nothing is sent beyond this machine, though the document's examples name hosts of others. And what has the numbers 1 and 2
stays, so that there is something to look at and to change until the end: what takes away is done to others.
"""

import json
import os

import schemathesis

SINK = os.environ["HOOKMILL_SINK"]
STAYS = ("1", "2")
OTHER = 4


@schemathesis.hook
def before_call(context, case, kwargs):
    path = case.operation.path
    takes_away = case.method.upper() == "DELETE" or path.endswith("/rollback")
    if takes_away and str((case.path_parameters or {}).get("id")) in STAYS:
        case.path_parameters["id"] = OTHER
    if isinstance(case.body, (dict, list)):
        text = json.dumps(case.body)
        if ".example.com" in text:
            for name in ("billing", "ledger"):
                text = text.replace(f"https://{name}.example.com", f"http://{SINK}")
            case.body = json.loads(text)
