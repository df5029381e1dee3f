//! An observer of training runs that lets them go on.

use boltzflow::train::{Directive, Observer, Progress};

pub struct Quiet;

impl Observer for Quiet {
    fn directive(&mut self) -> Directive {
        Directive::Continue
    }

    fn progress(&mut self, _: &Progress) {}

    fn note(&mut self, _: String) {}

    fn checkpoint(&mut self, _: u64, _: Vec<u8>) -> Result<(), String> {
        Ok(())
    }
}
