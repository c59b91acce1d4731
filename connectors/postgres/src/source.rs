//! temporary stand-in
use crate::Config;
use headgate_sdk::*;
/// x
#[derive(Debug)]
pub struct Postgres;
impl Postgres {
    /// x
    pub fn new(_n: &str, _c: Config) -> Self {
        Self
    }
}
impl Source for Postgres {
    async fn run<O: Outlet>(&mut self, _r: Resume, _o: &mut O, _c: Context) -> Result<(), Fault> {
        Ok(())
    }
}
