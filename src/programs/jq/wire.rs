//! What is said between hookmill and a worker over its standard input and output: frames of length-prefixed parts,
//! one request at a time.

use std::io::{self, Read, Write};

/// The worker's first bytes: the other end is a worker, and its limits are set.
pub(super) const HELLO: &[u8; 8] = b"hm-jq-1\n";
/// Bytes of any part, at most: a slip in the framing must not become an allocation.
const PART_BYTES_MAX: u32 = 256 << 20;

/// What a worker is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Whether a program compiles.
    Check {
        /// The program.
        program: Vec<u8>,
    },
    /// What a program makes of an input.
    Run {
        /// The program.
        program: Vec<u8>,
        /// JSON.
        input: Vec<u8>,
        /// A JSON object of its variables; empty for none.
        variables: Vec<u8>,
    },
}

/// What a worker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It compiles; or the one value that came out, as JSON.
    Done(Vec<u8>),
    /// What is wrong, for people.
    Fault(String),
}

impl Request {
    /// A request to run.
    pub(super) fn run(program: &str, input: &[u8], variables: &[u8]) -> Self {
        Self::Run { program: program.into(), input: input.to_vec(), variables: variables.to_vec() }
    }

    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Check { program } => {
                to.write_all(&[0])?;
                part(to, program)?;
            }
            Self::Run { program, input, variables } => {
                to.write_all(&[1])?;
                part(to, program)?;
                part(to, input)?;
                part(to, variables)?;
            }
        }
        to.flush()
    }

    /// `None` at the end of the input.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut kind = [0];
        if from.read(&mut kind)? == 0 {
            return Ok(None);
        }
        let program = read_part(from)?;
        match kind[0] {
            0 => Ok(Some(Self::Check { program })),
            1 => Ok(Some(Self::Run { program, input: read_part(from)?, variables: read_part(from)? })),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Answer {
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let (kind, text) = match self {
            Self::Done(value) => (0, value.as_slice()),
            Self::Fault(problem) => (1, problem.as_bytes()),
        };
        to.write_all(&[kind])?;
        part(to, text)?;
        to.flush()
    }

    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut kind = [0];
        from.read_exact(&mut kind)?;
        let text = read_part(from)?;
        match kind[0] {
            0 => Ok(Self::Done(text)),
            1 => Ok(Self::Fault(String::from_utf8_lossy(&text).into_owned())),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn part(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= PART_BYTES_MAX);
    to.write_all(&length.ok_or(io::ErrorKind::InvalidInput)?.to_be_bytes())?;
    to.write_all(bytes)
}

fn read_part(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > PART_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..50)
    }

    proptest! {
        #[test]
        fn requests_survive(program in bytes(), input in bytes(), variables in bytes(), check in any::<bool>()) {
            let request =
                if check { Request::Check { program } } else { Request::Run { program, input, variables } };
            let mut frame = Vec::new();
            request.write(&mut frame).expect("memory takes it");
            prop_assert_eq!(Request::read(&mut frame.as_slice()).expect("it is whole"), Some(request));
            frame.pop();
            prop_assert!(Request::read(&mut frame.as_slice()).is_err());
        }

        #[test]
        fn answers_survive(value in bytes(), problem in ".{0,20}") {
            for answer in [Answer::Done(value), Answer::Fault(problem)] {
                let mut frame = Vec::new();
                answer.write(&mut frame).expect("memory takes it");
                prop_assert_eq!(Answer::read(&mut frame.as_slice()).expect("it is whole"), answer);
            }
        }

        #[test]
        fn any_bytes_are_a_request_or_refused(bytes in bytes()) {
            let _ = Request::read(&mut bytes.as_slice());
        }
    }
}
