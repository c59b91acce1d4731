use crate::Config;
use headgate_sdk::{Fault, Finding};
/// x
pub async fn check(_s: &str, _c: &Config) -> Vec<Finding> {
    Vec::new()
}
/// x
pub async fn drop_source(_s: &str, _c: &Config) -> Result<Vec<String>, Fault> {
    Ok(Vec::new())
}
