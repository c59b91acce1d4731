//! An endpoint that would not be safe cannot be made.

use crate::vectors::{self, CATALOG};
use headgate_webhook::{Endpoint, Policy, Secret, Settings, SettingsError};

fn make(provider: &str, settings: Settings) -> Result<Endpoint, SettingsError> {
    Endpoint::new(CATALOG.get(provider).unwrap().clone(), settings)
}

#[test]
fn no_secret_no_endpoint() {
    for provider in CATALOG.iter() {
        let vector = vectors::of(provider.name()).remove(0);
        let settings = Settings { secrets: Vec::new(), ..vector.settings() };
        match make(provider.name(), settings) {
            // Asymmetric providers need no secret, but what they are signed for; two wait for a handshake.
            Ok(endpoint) => assert!(
                vector.secret.is_none() || !endpoint.has_secret(),
                "{} works without a secret",
                provider.name()
            ),
            Err(error) => assert!(matches!(error, SettingsError::NoSecret { .. }), "{error}"),
        }
        let empty = Settings { secrets: vec![Secret::new("")], ..vector.settings() };
        let error = make(provider.name(), empty).unwrap_err();
        assert!(matches!(error, SettingsError::Secret { .. }), "{}: {error}", provider.name());
    }
}

#[test]
fn required_parameters_are_required() {
    for (provider, parameter) in
        [("aws-sns", "topic_arn"), ("paypal", "webhook_id"), ("google-pubsub", "audience")]
    {
        let mut settings = vectors::of(provider).remove(0).settings();
        settings.parameters.insert(parameter.to_owned(), Secret::new(""));
        let error = make(provider, settings.clone()).unwrap_err().to_string();
        assert!(error.contains(parameter), "{error}");
        settings.parameters.remove(parameter);
        assert!(make(provider, settings.clone()).is_err());
        settings.parameters.insert("no_such".to_owned(), Secret::new("x"));
        assert!(make(provider, settings).unwrap_err().to_string().contains("no_such"));
    }
}

#[test]
fn an_hmac_is_not_weakened_to_a_hash_that_anybody_can_make() {
    // "sha256" is what one would call it, and is another algorithm: a hash without a key.
    for algorithm in ["sha256", "token", "require", "jwt", "md5", "HMAC-SHA256"] {
        let mut settings = vectors::of("hmac").remove(0).settings();
        settings.parameters.insert("algorithm".to_owned(), Secret::new(algorithm));
        let error = make("hmac", settings).unwrap_err().to_string();
        assert!(error.contains("algorithm") && error.contains("hmac-sha512"), "{error}");
    }
    let file = r#"
        name = "own"
        title = "Own"
        facts = "memory"
        setup = "{url}"
        sample = []
        [secret]
        about = "a text"
        [[verify]]
        name = "X-Signature"
        algorithm = "sha256"
        signature = { header = "X-Signature", encoding = "hex" }
        message = "{body}"
        [map]
        prefix = "own"
    "#;
    let directory = tempfile::tempdir().unwrap();
    let loaded = |file: &str| {
        std::fs::write(directory.path().join("own.toml"), file).unwrap();
        headgate_webhook::Catalog::builtin().unwrap().add_dir(directory.path())
    };
    let error = loaded(file).unwrap_err().to_string();
    assert!(error.contains("hmac-sha256"), "{error}");
    loaded(&file.replace("{body}", "{secret}{body}")).unwrap();
}

#[test]
fn url_signers_need_the_url() {
    for provider in ["twilio", "hubspot", "square"] {
        let settings = Settings { public_url: None, ..vectors::of(provider).remove(0).settings() };
        assert!(matches!(make(provider, settings), Err(SettingsError::NoPublicUrl { .. })), "{provider}");
    }
}

#[test]
fn the_integrity_policy_leaves_no_weaker_scheme() {
    for provider in
        ["gitlab", "google-drive", "okta", "monday", "mailgun", "basic", "token", "aws-sns", "paypal"]
    {
        let vector = vectors::of(provider).pop().unwrap();
        let settings = Settings { integrity: Policy::Body, ..vector.settings() };
        assert!(matches!(make(provider, settings), Err(SettingsError::Integrity { .. })), "{provider}");
    }
    // Jira's token is not accepted any more where bodies have to be signed.
    let [signed, token] = vectors::of("jira").try_into().unwrap();
    let settings = Settings { integrity: Policy::Body, ..signed.settings() };
    let endpoint = make("jira", settings).unwrap();
    assert!(matches!(signed.verdict(&endpoint), headgate_webhook::Verdict::Deliveries { .. }));
    assert!(matches!(token.verdict(&endpoint), headgate_webhook::Verdict::Refused(_)));
}

#[test]
fn keys_of_the_wrong_form_are_refused_without_being_shown() {
    for (provider, secret) in [
        ("adyen", "not hexadecimal"),
        ("airtable", "not base64!"),
        ("discord", "abcd"),
        ("sendgrid", "YWJjZA=="),
        ("standard-webhooks", "whsec_???"),
    ] {
        let mut settings = vectors::of(provider).remove(0).settings();
        settings.secrets = vec![Secret::new(secret)];
        let text = format!("{:?} {settings:?}", make(provider, settings.clone()).unwrap_err());
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn a_strange_algorithm_is_refused_without_showing_parameters() {
    let mut settings = vectors::of("hmac").remove(0).settings();
    settings.parameters.insert("algorithm".to_owned(), Secret::new("hmac-md5-hunter2"));
    let error = make("hmac", settings).unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn the_documented_provider_of_ones_own_works() {
    let page = include_str!("../../../../docs/providers/README.md");
    let (_, rest) = page.split_once("```toml\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let provider = std::sync::Arc::new(headgate_webhook::Provider::parse(text).unwrap());
    let settings = Settings { secrets: vec![Secret::new("whsec_c2VjcmV0")], ..Settings::default() };
    let endpoint = Endpoint::new(provider, settings).unwrap();
    let signed = endpoint.sign(None, 1_795_356_367_000_000).unwrap();
    let verdict = endpoint.receive(&headgate_webhook::Request {
        method: &signed.method,
        path_and_query: "/webhooks/acme",
        headers: &signed.headers,
        body: &signed.body,
        received_at: 1_795_356_367_000_000,
        pending: false,
    });
    let headgate_webhook::Verdict::Deliveries { deliveries, ack } = verdict else { panic!("{verdict:?}") };
    assert_eq!(ack.status, 204);
    let delivery = &deliveries[0];
    assert_eq!((delivery.entity.as_str(), delivery.verb.as_str()), ("order", "paid"));
    assert_eq!(delivery.source.as_deref(), Some("https://acme.example/a1"));
}

/// What has to be clicked is said with the URL to paste; Airtable has no page where it could be pasted.
#[test]
fn every_provider_is_told_the_url() {
    for provider in CATALOG.iter() {
        let text = provider.setup("https://hooks.example.com/webhooks/in");
        let by_api_alone = provider.name() == "airtable";
        let told = text.contains("https://hooks.example.com/webhooks/in");
        assert!(told != by_api_alone, "{}: {text}", provider.name());
        assert!(
            !text.contains("{url}") && !text.contains("the endpoint's URL"),
            "{}: {text}",
            provider.name()
        );
    }
    assert!(CATALOG.iter().count() >= 47);
}

#[test]
fn every_provider_has_its_section_in_the_docs() {
    let pages =
        ["clouds", "code", "commerce", "customers", "generic", "messages", "payments", "work"].map(|page| {
            let path = format!("{}/../../docs/providers/{page}.md", env!("CARGO_MANIFEST_DIR"));
            std::fs::read_to_string(path).unwrap()
        });
    for provider in CATALOG.iter() {
        let heading = format!(
            "## {}: `{}`\n\n{}",
            provider.title(),
            provider.name(),
            provider.setup("the endpoint's URL")
        );
        let found = pages.iter().filter(|page| page.contains(&heading)).count();
        assert_eq!(
            found,
            1,
            "{}: heading and setup have to stand in docs/providers as in its file",
            provider.name()
        );
    }
}
