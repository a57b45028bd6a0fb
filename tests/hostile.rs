//! Messages that nobody should send, to a daemon that has other things to do: each gets the answer
//! that the RFC asks for, and the call that is recorded meanwhile hears nothing of it.

mod support;

use std::{net::SocketAddr, time::Duration};

use support::Node;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long an answer may take; what is not answered costs this much.
const PATIENCE: Duration = Duration::from_millis(700);

/// The messages of RFC 4475 and the final status that each gets, over UDP and over TCP; 0 is none.
///
/// There are users, so a stranger's good INVITE and REGISTER are asked who it is.
const ANSWERS: [(&str, u16, u16); 49] = [
    // 3.1.1, valid messages.
    ("wsinv", 481, 481),
    ("intmeth", 501, 501),
    ("esc01", 401, 401),
    ("escnull", 401, 401),
    ("esc02", 501, 501),
    ("lwsdisp", 200, 200),
    ("longreq", 401, 401),
    ("dblreq", 401, 401),
    ("semiuri", 200, 200),
    ("transports", 200, 200),
    ("mpart01", 405, 405),
    ("unreason", 0, 0),
    ("noreason", 0, 0),
    // 3.1.2, invalid messages.
    ("badinv01", 400, 400),
    // It is shorter than it says, so a stream waits for more.
    ("clerr", 400, 0),
    ("ncl", 400, 400),
    ("scalar02", 400, 400),
    ("scalarlg", 0, 0),
    ("quotbal", 400, 400),
    ("ltgtruri", 400, 400),
    ("lwsruri", 400, 400),
    ("lwsstart", 400, 400),
    ("trws", 400, 400),
    ("escruri", 400, 400),
    ("baddate", 401, 401),
    ("regbadct", 400, 400),
    ("badaspec", 400, 400),
    // Its header has no end, so a stream waits for more.
    ("baddn", 400, 0),
    ("badvers", 505, 505),
    ("mismatch01", 400, 400),
    ("mismatch02", 501, 501),
    ("bigcode", 0, 0),
    // 3.2, transaction layer: the branch is the cookie alone, so it is taken for one of RFC 2543.
    ("badbranch", 200, 200),
    // 3.3, application layer.
    ("insuf", 400, 400),
    ("unkscm", 416, 416),
    ("novelsc", 416, 416),
    ("unksm2", 400, 400),
    ("bext01", 420, 420),
    ("invut", 415, 415),
    ("regaut01", 401, 401),
    ("multi01", 400, 400),
    ("mcl01", 400, 400),
    ("bcast", 0, 0),
    ("zeromf", 200, 200),
    ("cparam01", 401, 401),
    ("cparam02", 401, 401),
    ("regescrt", 401, 401),
    ("sdp01", 401, 401),
    // 3.4, backward compatibility.
    // A stranger of RFC 2543; on a stream nobody knows where it ends (RFC 3261 section 18.3).
    ("inv2543", 401, 400),
];

/// A node that takes UDP and TCP, with one user and the built-in lines.
fn node() -> (Node, SocketAddr) {
    let node = Node::start(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]\n\
         [[users]]\nname = \"alice\"\npassword = \"secret\"\n",
    );
    let tcp = node.listener("tcp");
    (node, tcp)
}

fn message(name: &str) -> Vec<u8> {
    std::fs::read(format!("tests/torture/{name}.dat")).unwrap()
}

/// The status of a response, if it is a final one.
fn final_status(response: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(response.get(..12)?).ok()?;
    let status = text.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()?;
    (status >= 200).then_some(status)
}

async fn ask_by_udp(node: SocketAddr, bytes: &[u8]) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(bytes, node).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let answer = async {
        loop {
            let length = socket.recv(&mut buffer).await.unwrap();
            if let Some(status) = final_status(&buffer[..length]) {
                return status;
            }
        }
    };
    timeout(PATIENCE, answer).await.unwrap_or(0)
}

async fn ask_by_tcp(node: SocketAddr, bytes: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(node).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut heard = Vec::new();
    let answer = async {
        let mut buffer = [0; 65_535];
        loop {
            let starts = heard.windows(8).enumerate().filter(|(_, window)| *window == b"SIP/2.0 ");
            let found = starts.map(|(at, _)| at).find_map(|at| final_status(&heard[at..]));
            if let Some(status) = found {
                return status;
            }
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return 0,
                Ok(length) => heard.extend_from_slice(&buffer[..length]),
            }
        }
    };
    timeout(PATIENCE, answer).await.unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_torture_message_gets_its_answer_over_udp_and_tcp() {
    // One node for each: the same message by two ways would be one that was sent again.
    let ((datagrams, _), (streams, tcp)) = (node(), node());
    let mut wrong = Vec::new();
    for (name, by_udp, by_tcp) in ANSWERS {
        let bytes = message(name);
        let (udp, tcp) = tokio::join!(ask_by_udp(datagrams.sip, &bytes), ask_by_tcp(tcp, &bytes));
        if (udp, tcp) != (by_udp, by_tcp) {
            wrong.push(format!("{name}: wanted {by_udp} and {by_tcp}, got {udp} and {tcp}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    drop(streams);
}
