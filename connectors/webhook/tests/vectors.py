#!/usr/bin/env python3
"""Writes the test vectors of the provider files anew:  tests/vectors.py

Every signature is computed here with Python's own hmac, hashlib and the cryptography package, from what the providers'
documentation says, not from the files' rules: so a mistake in the rules or in the Rust code does not agree with itself.
"""
import base64, glob, hashlib, hmac, json, os, re, sys, tomllib, zlib
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography import x509
from cryptography.x509.oid import NameOID
import datetime

HERE = os.path.dirname(os.path.abspath(__file__))
PROVIDERS = os.path.join(HERE, "..", "providers")
NOW = 1795356367  # 2026-11-22T14:06:07Z
SECRET = "test-secret-0123456789abcdef"
URL = "https://hooks.example.com/webhooks/shop"


def mac(key, message, algorithm="sha256"):
    return hmac.new(key, message, algorithm).digest()


def b64(raw):
    return base64.b64encode(raw).decode()


def b64u(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwt(claims, sign, alg, **more):
    head = b64u(json.dumps({"alg": alg, "typ": "JWT", **more}).encode())
    signed = f"{head}.{b64u(json.dumps(claims).encode())}"
    return f"{signed}.{b64u(sign(signed.encode()))}"


# Keys are made once and kept in the files as public keys only: a new run makes new ones.
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
ED_PUBLIC = ED.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
EC_PUBLIC = EC.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def certificate():
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(RSA.public_key())
    built = built.serial_number(1).not_valid_before(day).not_valid_after(day + datetime.timedelta(days=3650))
    return built.sign(RSA, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def rsa_sign(message, algorithm=hashes.SHA256()):
    return RSA.sign(message, padding.PKCS1v15(), algorithm)


def jwks():
    numbers = RSA.public_key().public_numbers()
    size = lambda n: n.to_bytes((n.bit_length() + 7) // 8, "big")
    return json.dumps({"keys": [{"kid": "k1", "kty": "RSA", "alg": "RS256", "n": b64u(size(numbers.n)), "e": b64u(size(numbers.e))}]})


def header(name, make):
    """A signature over the body alone, in one header."""
    return lambda body, headers: {"headers": {name: make(body)}}


hex256 = lambda body: mac(SECRET.encode(), body).hex()
b64_256 = lambda body: b64(mac(SECRET.encode(), body))
hex1 = lambda body: mac(SECRET.encode(), body, "sha1").hex()


def stripe(name):
    return lambda body, headers: {"headers": {name: f"t={NOW},v1={mac(SECRET.encode(), f'{NOW}.'.encode() + body).hex()}"}}


def twilio(body, headers):
    import urllib.parse
    pairs = sorted(set(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True)))
    message = URL + "".join(name + value for name, value in pairs)
    return {"headers": {"X-Twilio-Signature": b64(mac(SECRET.encode(), message.encode(), "sha1"))}}


def linear(body, headers):
    return {"headers": {"Linear-Signature": hex256(body)}}


def mailgun(body, headers):
    data = json.loads(body)
    signature = mac(SECRET.encode(), (data["signature"]["timestamp"] + data["signature"]["token"]).encode()).hex()
    return {"body": body.decode().replace("0" * 64, signature)}


def adyen(body, headers):
    item = json.loads(body)["notificationItems"][0]["NotificationRequestItem"]
    fields = [item["pspReference"], "", item["merchantAccountCode"], item["merchantReference"], str(item["amount"]["value"]),
              item["amount"]["currency"], item["eventCode"], item["success"]]
    key = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"
    signature = b64(mac(bytes.fromhex(key), ":".join(fields).encode()))
    return {"secret": key, "body": body.decode().replace('"AAAA"', f'"{signature}"')}


def graph(body, headers):
    return {"body": body.decode().replace('"clientState":"x"', f'"clientState":"{SECRET}"')}


def sns(body, headers):
    data = json.loads(body)
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    message = "".join(f"{name}\n{data[name]}\n" for name in names if name in data)
    return {"secret": None, "body": body.decode().replace('"AAAA"', f'"{b64(rsa_sign(message.encode()))}"'),
            "keys": {data["SigningCertURL"]: certificate()}}


def paypal(body, headers):
    time = "2026-11-22T14:06:07Z"
    message = f"{headers['PAYPAL-TRANSMISSION-ID']}|{time}|1JE4291016473214C|{zlib.crc32(body)}"
    return {"secret": None, "headers": {"PAYPAL-TRANSMISSION-TIME": time, "PAYPAL-TRANSMISSION-SIG": b64(rsa_sign(message.encode())),
            "PAYPAL-AUTH-ALGO": "SHA256withRSA"}, "keys": {headers["PAYPAL-CERT-URL"]: certificate()}}


def pubsub(body, headers):
    claims = {"iss": "https://accounts.google.com", "aud": "https://hooks.example.com/webhooks/pubsub", "email": "push@octo.iam.gserviceaccount.com",
              "email_verified": True, "iat": NOW, "exp": NOW + 3600, "sub": "1"}
    return {"secret": None, "headers": {"Authorization": "Bearer " + jwt(claims, rsa_sign, "RS256", kid="k1")},
            "keys": {"https://www.googleapis.com/oauth2/v3/certs": jwks()}}


def monday(body, headers):
    claims = {"aud": URL, "iat": NOW, "exp": NOW + 300}
    return {"headers": {"Authorization": jwt(claims, lambda m: mac(SECRET.encode(), m), "HS256")}}


def standard(body, headers):
    key = bytes(range(32))
    message = f"{headers['webhook-id']}.{NOW}.".encode() + body
    return {"secret": "whsec_" + b64(key), "headers": {"webhook-timestamp": str(NOW), "webhook-signature": "v1," + b64(mac(key, message))}}


def standard_ed25519(body, headers):
    message = f"{headers['webhook-id']}.{NOW}.".encode() + body
    return {"secret": "whpk_" + b64(ED_PUBLIC), "headers": {"webhook-timestamp": str(NOW), "webhook-signature": "v1,AAAA v1a," + b64(ED.sign(message))}}


def gitlab_signed(body, headers):
    key = bytes(range(32))
    message = f"{headers['webhook-id']}.{NOW}.".encode() + body
    return {"secret": "whsec_" + b64(key), "headers": {"webhook-timestamp": str(NOW), "webhook-signature": "v1," + b64(mac(key, message))}}


def zendesk(body, headers):
    time = "2026-11-22T14:06:07Z"
    return {"headers": {"X-Zendesk-Webhook-Signature-Timestamp": time, "X-Zendesk-Webhook-Signature": b64(mac(SECRET.encode(), time.encode() + body))}}


def v0(signature, timestamp):
    return lambda body, headers: {"headers": {timestamp: str(NOW), signature: "v0=" + mac(SECRET.encode(), f"v0:{NOW}:".encode() + body).hex()}}


def box(body, headers):
    time = "2026-11-22T06:06:07-08:00"
    return {"headers": {"BOX-DELIVERY-TIMESTAMP": time, "BOX-SIGNATURE-SECONDARY": b64(mac(SECRET.encode(), body + time.encode()))}}


def discord(body, headers):
    return {"secret": ED_PUBLIC.hex(), "headers": {"X-Signature-Timestamp": str(NOW), "X-Signature-Ed25519": ED.sign(str(NOW).encode() + body).hex()}}


def sendgrid(body, headers):
    signature = EC.sign(str(NOW).encode() + body, ec.ECDSA(hashes.SHA256()))
    return {"secret": b64(EC_PUBLIC), "headers": {"X-Twilio-Email-Event-Webhook-Timestamp": str(NOW), "X-Twilio-Email-Event-Webhook-Signature": b64(signature)}}


def hubspot(body, headers):
    stamp = NOW * 1000
    return {"headers": {"X-HubSpot-Request-Timestamp": str(stamp), "X-HubSpot-Signature-v3": b64(mac(SECRET.encode(), f"POST{URL}".encode() + body + str(stamp).encode()))}}


def hubspot_v2(body, headers):
    return {"headers": {"X-HubSpot-Signature-Version": "v2", "X-HubSpot-Signature": hashlib.sha256(f"{SECRET}POST{URL}".encode() + body).hexdigest()}}


def square(body, headers):
    return {"headers": {"x-square-hmacsha256-signature": b64(mac(SECRET.encode(), URL.encode() + body))}}


def airtable(body, headers):
    key = bytes(range(40))
    return {"secret": b64(key), "headers": {"X-Airtable-Content-MAC": "hmac-sha256=" + mac(key, body).hex()}}


SIGN = {
    "adyen": [adyen],
    "airtable": [airtable],
    "asana": [header("X-Hook-Signature", hex256)],
    "aws-sns": [sns],
    "basic": [lambda body, headers: {"secret": "octo:pass:word", "headers": {"Authorization": "Basic " + b64(b"octo:pass:word")}}],
    "bitbucket": [header("X-Hub-Signature", lambda body: "sha256=" + hex256(body))],
    "box": [box],
    "calendly": [stripe("Calendly-Webhook-Signature")],
    "clickup": [header("X-Signature", hex256)],
    "cloudevents": [header("Authorization", lambda body: "Bearer " + SECRET), header("X-Signature-256", lambda body: "sha256=" + hex256(body))],
    "discord": [discord],
    "docusign": [lambda body, headers: {"headers": {"X-DocuSign-Signature-1": b64(mac(b"an older key", body)), "X-DocuSign-Signature-2": b64_256(body)}}],
    "dropbox": [header("X-Dropbox-Signature", hex256)],
    "github": [header("X-Hub-Signature-256", lambda body: "sha256=" + hex256(body))],
    "gitlab": [gitlab_signed, header("X-Gitlab-Token", lambda body: SECRET)],
    "google-drive": [header("X-Goog-Channel-Token", lambda body: SECRET)],
    "google-pubsub": [pubsub],
    "hmac": [header("X-Signature", hex256)],
    "hubspot": [hubspot, hubspot_v2],
    "intercom": [header("X-Hub-Signature", lambda body: "sha1=" + hex1(body))],
    "jira": [header("X-Hub-Signature", lambda body: "sha256=" + hex256(body)),
             lambda body, headers: {"headers": {"Authorization": "JWT " + monday(body, headers)["headers"]["Authorization"]}}],
    "linear": [linear],
    "mailgun": [mailgun],
    "meta": [header("X-Hub-Signature-256", lambda body: "sha256=" + hex256(body))],
    "microsoft-graph": [graph],
    "monday": [monday],
    "notion": [header("X-Notion-Signature", lambda body: "sha256=" + hex256(body))],
    "okta": [header("Authorization", lambda body: SECRET)],
    "pagerduty": [header("X-PagerDuty-Signature", lambda body: "v1=" + "0" * 64 + ",v1=" + hex256(body))],
    "paypal": [paypal],
    "salesforce": [lambda body, headers: {"secret": "00D000000000001EAA"}],
    "salesforce-hmac": [header("X-Signature", b64_256)],
    "segment": [header("X-Signature", hex1)],
    "sendgrid": [sendgrid],
    "sentry": [header("Sentry-Hook-Signature", hex256)],
    "shopify": [header("X-Shopify-Hmac-Sha256", b64_256)],
    "slack": [v0("X-Slack-Signature", "X-Slack-Request-Timestamp")],
    "square": [square],
    "standard-webhooks": [standard, standard_ed25519],
    "stripe": [stripe("Stripe-Signature")],
    "token": [header("Authorization", lambda body: "Bearer " + SECRET)],
    "twilio": [twilio],
    "typeform": [header("Typeform-Signature", lambda body: "sha256=" + b64_256(body))],
    "vercel": [header("x-vercel-signature", hex1)],
    "woocommerce": [header("X-WC-Webhook-Signature", b64_256)],
    "xero": [header("x-xero-signature", b64_256)],
    "zendesk": [zendesk],
    "zoom": [v0("x-zm-signature", "x-zm-request-timestamp")],
}


def text(value):
    return json.dumps(value, ensure_ascii=False)


def block(value):
    return f"'''{value}'''" if "'''" not in value else text(value)


def vector(sample, made):
    lines = ["", "[[vector]]", f"sample = {text(sample['name'])}"]
    secret = made.get("secret", SECRET)
    if secret is not None:
        lines.append(f"secret = {text(secret)}")
    lines += [f"now = {NOW}", f"url = {text(URL)}"]
    if made.get("headers"):
        lines.append("headers = { " + ", ".join(f"{text(k)} = {text(v)}" for k, v in made["headers"].items()) + " }")
    if "body" in made:
        lines.append(f"body = {block(made['body'])}")
    for url, document in made.get("keys", {}).items():
        lines.append(f"keys = {{ {text(url)} = {text(document)} }}")
    return "\n".join(lines) + "\n"


def main():
    for path in sorted(glob.glob(os.path.join(PROVIDERS, "*.toml"))):
        source = open(path).read()
        name = os.path.basename(path)[:-5]
        old = tomllib.loads(source)
        body = re.split(r"\n\[\[vector\]\]", source)[0].rstrip() + "\n"
        for at, sign in enumerate(SIGN[name]):
            samples = old["sample"] if at == 0 else old["sample"][:1]
            for sample in samples:
                raw = sample["body"].encode()
                body += vector(sample, sign(raw, sample.get("headers", {})))
        open(path, "w").write(body)


if __name__ == "__main__":
    sys.exit(main())
