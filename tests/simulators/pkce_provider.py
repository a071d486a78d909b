"""An OpenID Connect provider that insists on PKCE (RFC 7636), which `oidc_provider_mock` ignores.

A program of its own: ``pkce_provider.py PORT USER-AS-JSON...``. A login without an S256 challenge
is refused, and so is a code that comes without the verifier of its challenge.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
from urllib.parse import parse_qs, urlsplit

import flask
import oidc_provider_mock
import uvicorn
from oidc_provider_mock import User


class Challenges:
    """The challenge of each code that was given out, checked when the code comes back."""

    def __init__(self) -> None:
        self._of_code: dict[str, str] = {}

    def check(self) -> tuple[dict[str, str], int] | None:
        """Refuse a request that breaks RFC 7636, sections 4.3 and 4.6."""
        asked, sent = flask.request.args, flask.request.form
        if flask.request.path == "/oauth2/authorize":
            whole = asked.get("code_challenge_method") == "S256" and asked.get("code_challenge")
            return None if whole else ({"error": "invalid_request"}, 400)
        if flask.request.path == "/oauth2/token":
            digest = hashlib.sha256(sent.get("code_verifier", "").encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            expected = self._of_code.pop(sent.get("code", ""), "")
            if not hmac.compare_digest(challenge, expected):
                return {"error": "invalid_grant", "error_description": "wrong verifier"}, 400
        return None

    def remember(self, answer: flask.Response) -> flask.Response:
        """Remember which challenge the code of an answer belongs to."""
        code = parse_qs(urlsplit(answer.headers.get("location", "")).query).get("code")
        if code:
            self._of_code[code[0]] = flask.request.args["code_challenge"]
        return answer


def main() -> None:
    """Serve until a signal."""
    port, *people = sys.argv[1:]
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
    described = [json.loads(person) for person in people]
    app = oidc_provider_mock.app(
        require_nonce=True,
        user_claims=[User(sub=each.pop("sub"), claims=each) for each in described],
    )
    challenges = Challenges()
    app.before_request(challenges.check)
    app.after_request(challenges.remember)
    uvicorn.run(app, interface="wsgi", port=int(port), host="127.0.0.1", log_config=None)


if __name__ == "__main__":
    main()
