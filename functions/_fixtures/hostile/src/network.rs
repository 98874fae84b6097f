//! Calls to where a function has no business.

use wasmeter_guest::http::Call;

use crate::case::Case;

/// Calls itself, and says the number of the innermost answer's status.
pub(crate) fn call_self(case: Case) {
    let own = format!(
        "http://{}{}",
        case.request.authority().unwrap_or_default(),
        // The platform's path of this very function.
        "/fn/dev/self/self"
    );
    let text = match Call::get(own).send() {
        Err(error) => format!("{error}\n"),
        Ok(answer) if answer.status() == 200 => {
            let inner = answer.body(1000).unwrap_or_default();
            String::from_utf8_lossy(&inner).into_owned()
        }
        Ok(answer) => format!("{}\n", answer.status()),
    };
    case.say(&text);
}

/// Looks around: who answers here and next door?
pub(crate) fn scan(case: Case) {
    let ports = (1..=40).map(|port| format!("http://127.0.0.1:{port}/"));
    let hosts = (1..=40).map(|host| format!("http://10.0.0.{host}/"));
    let metadata = ["http://169.254.169.254/latest/meta-data/".to_owned(), "http://[::1]/".to_owned()];
    let answers = ports.chain(hosts).chain(metadata).filter(|url| Call::get(url.as_str()).send().is_ok());
    let count = answers.count();
    case.say(&format!("{count} answers\n"));
}
