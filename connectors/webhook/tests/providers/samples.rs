//! Signed test deliveries: what `headgate webhook send` posts is accepted like the real thing.

use crate::vectors;
use headgate_webhook::{Request, SignError, Verdict};
use std::collections::BTreeSet;

#[test]
fn a_signed_sample_is_accepted_where_the_secret_can_sign() {
    let mut only_provider = BTreeSet::new();
    for vector in vectors::all() {
        let endpoint = vector.endpoint();
        let now = 1_900_000_000_123_456;
        for sample in endpoint.provider().samples() {
            let signed = match endpoint.sign(Some(sample), now) {
                Ok(signed) => signed,
                Err(SignError::OnlyProvider) => {
                    only_provider.insert(vector.provider.clone());
                    continue;
                }
                Err(error) => panic!("{}: {error}", vector.label()),
            };
            let verdict = endpoint.receive(&Request {
                method: &signed.method,
                path_and_query: &format!(
                    "/webhooks/shop{}",
                    if signed.query.is_empty() { String::new() } else { format!("?{}", signed.query) }
                ),
                headers: &signed.headers,
                body: &signed.body,
                received_at: now + 1_000_000,
                pending: false,
            });
            assert!(
                matches!(verdict, Verdict::Deliveries { .. }),
                "{} {sample}: {verdict:?}",
                vector.label()
            );
        }
    }
    let expected = ["aws-sns", "discord", "google-pubsub", "paypal", "sendgrid", "standard-webhooks"];
    assert_eq!(only_provider, expected.map(str::to_owned).into());
}

#[test]
fn an_unknown_sample_is_named_with_the_known() {
    let error = vectors::of("github").remove(0).endpoint().sign(Some("isues"), 0).unwrap_err();
    assert_eq!(error.to_string(), "no sample \"isues\" (there are: issues.opened, push)");
}
