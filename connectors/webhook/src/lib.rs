//! Webhooks of any provider, verified and kept, as a Headgate source.
