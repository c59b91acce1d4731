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
    for (provider, parameter) in [
        ("aws-sns", "topic_arn"),
        ("paypal", "webhook_id"),
        ("google-pubsub", "audience"),
        ("meta", "verify_token"),
    ] {
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
