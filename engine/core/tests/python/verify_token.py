"""Verifies a decision token with PyJWT, using nothing of Placet but its JWK set.

usage: verify_token.py JWKS_FILE ISSUER AUDIENCE [NOW]   (token on standard input)

Prints the claims as JSON. Exit 0 if the token is good, 1 if it is refused.
NOW, in seconds since 1970, replaces the machine's clock, so that old vectors can be checked.
"""

import json
import sys

import jwt

TYP = "placet-decision+jwt"


def verify(token, jwks, issuer, audience, now=None):
    header = jwt.get_unverified_header(token)
    if header.get("typ") != TYP:
        raise jwt.InvalidTokenError(f"typ is {header.get('typ')!r}, not {TYP!r}")
    key = jwt.PyJWKSet.from_json(jwks)[header["kid"]]
    claims = jwt.decode(
        token,
        key.key,
        algorithms=["EdDSA"],
        audience=audience,
        issuer=issuer,
        options={
            "require": ["iss", "aud", "sub", "jti", "iat", "exp"],
            "verify_exp": now is None,
            "verify_iat": now is None,
        },
    )
    if now is not None and not claims["iat"] - 60 <= now < claims["exp"]:
        raise jwt.InvalidTokenError(f"not valid at {now}")
    return claims


def main():
    path, issuer, audience, *now = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        jwks = file.read()
    token = sys.stdin.read().strip()
    try:
        claims = verify(token, jwks, issuer, audience, int(now[0]) if now else None)
    except (jwt.PyJWTError, KeyError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    print(json.dumps(claims, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
