//! Assertions about a program that has ended.

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its output, with its errors.
    pub said: String,
    pub(crate) command: String,
}

impl Ended {
    /// Asserts its exit code.
    ///
    /// # Panics
    /// It is another one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code of {}, which said:\n{}", self.command, self.said);
        self
    }

    /// Asserts that it printed exactly one error, of which all `parts` are part.
    ///
    /// # Panics
    /// There is another number of messages, or a part is missing.
    #[track_caller]
    pub fn expect_error(self, parts: &[&str]) -> Self {
        let errors = self.said.matches("error: ").count();
        assert_eq!(errors, 1, "number of errors of {}, which said:\n{}", self.command, self.said);
        for part in parts {
            assert!(self.said.contains(part), "{part:?} is missing in what {} said:\n{}", self.command, self.said);
        }
        self
    }
}
