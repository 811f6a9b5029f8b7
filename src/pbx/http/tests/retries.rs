use hmac::{Hmac, KeyInit, Mac};

use super::*;
use crate::presence::{LinkState, PbxSignal};

/// Answers these statuses in turn, then 200.
async fn statuses(statuses: &'static [u16]) -> Server {
    Server::start(move |_, number| async move { answer(statuses.get(number).copied().unwrap_or(200), "") })
        .await
}

#[tokio::test]
async fn what_may_pass_is_tried_again_with_growing_waits_and_the_same_id() {
    let bench = Bench::new(statuses(&[503, 408, 500]).await, SET);
    let wanted = meeting();
    let passes = async {
        let mut waits = Vec::new();
        for n in 1..=3 {
            waits.push(bench.clock.pass_sleep(n).await.as_millis());
        }
        waits
    };
    let (outcome, waits) = tokio::join!(bench.set(&wanted), passes);
    outcome.unwrap();
    for (wait, whole) in waits.iter().zip([500, 1_000, 2_000]) {
        assert!((whole / 2..=whole).contains(wait), "{waits:?}");
    }
    let seen = bench.server.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|seen| seen.header("idempotency-key") == "t-1"));
}

#[tokio::test]
async fn what_will_not_change_is_not_tried_again() {
    for (status, part) in [
        (400, "status 400"),
        (403, "status 403"),
        (404, "does not know extension `1001`"),
        (409, "status 409"),
        (410, "gone for good"),
        (422, "status 422"),
        (302, "redirect"),
    ] {
        let bench = Bench::new(Server::always(status, "").await, SET);
        let error = bench.set(&meeting()).await.unwrap_err();
        assert_eq!(error.disposition(), crate::model::Disposition::Park, "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(bench.server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_wish_for_patience_that_fits_is_honoured() {
    let server = Server::start(|_, number| async move {
        match number {
            0 => ([("retry-after", "20")], answer(429, "")).into_response(),
            _ => answer(200, ""),
        }
    })
    .await;
    let bench = Bench::new(server, SET);
    let wanted = meeting();
    let (outcome, wait) = tokio::join!(bench.set(&wanted), bench.clock.pass_sleep(1));
    outcome.unwrap();
    assert_eq!(wait, SignedDuration::from_secs(20));
}

#[tokio::test]
async fn a_wish_for_patience_beyond_the_lease_goes_back_to_the_queue() {
    let server =
        Server::start(|_, _| async { ([("retry-after", "90")], answer(503, "")).into_response() }).await;
    let bench = Bench::new(server, SET);
    let error = bench.set(&meeting()).await.unwrap_err();
    assert!(
        matches!(error, PbxError::Throttled { retry_after: Some(after) } if after == Duration::from_secs(90)),
        "{error:?}"
    );
    assert_eq!(bench.server.seen().len(), 1);
}

#[tokio::test]
async fn attempts_end_where_they_are_counted_out() {
    let bench = Bench::new(Server::always(503, "").await, &format!("attempts = 2\n{SET}"));
    let wanted = meeting();
    let (outcome, _) = tokio::join!(bench.set(&wanted), bench.clock.pass_sleep(1));
    let error = outcome.unwrap_err();
    assert_eq!(
        crate::chain::Chain(&error).to_string(),
        "the PBX did not answer: it answered with status 503"
    );
    assert_eq!(bench.server.seen().len(), 2);
}

#[tokio::test]
async fn a_good_status_with_a_bad_code_inside_is_a_refusal_in_the_pbxs_words() {
    let server = Server::always(200, r#"{"errcode":1,"errmsg":"NO\nSUCH STATUS"}"#).await;
    let settings = format!("{SET}[success]\npointer = \"/errcode\"\nequals = 0\nmessage = \"/errmsg\"\n");
    let error = Bench::new(server, &settings).set(&meeting()).await.unwrap_err();
    assert_eq!(error.to_string(), r#"the PBX refused: `/errcode` is `1`, not `0` ("NO\nSUCH STATUS")"#);
}

#[tokio::test]
async fn an_answer_that_is_not_understood_is_said_so_without_its_text() {
    let settings = format!("{SET}[success]\npointer = \"/errcode\"\nequals = 0\n");
    let error =
        Bench::new(Server::always(200, "<secret>").await, &settings).set(&meeting()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the PBX answered something unexpected: the answer is not JSON (line 1, column 1)"
    );
}

#[tokio::test]
async fn only_the_named_statuses_count_as_done_where_some_are_named() {
    let settings = format!("{SET}[success]\nstatus = [204]\n");
    assert!(Bench::new(Server::always(204, "").await, &settings).set(&meeting()).await.is_ok());
    let error = Bench::new(Server::always(202, "").await, &settings).set(&meeting()).await.unwrap_err();
    assert!(matches!(error, PbxError::Refused { .. }));
}

#[tokio::test]
async fn a_target_that_fails_is_left_alone_and_tried_with_one_request() {
    let server = statuses(&[503, 503]).await;
    let settings = format!("attempts = 1\nbreaker = {{ failures = 2, open_secs = 30 }}\n{SET}");
    let bench = Bench::new(server, &settings);
    let mut signals = bench.pbx.signals();
    assert_eq!(bench.pbx.link(), LinkState::Unknown);
    for _ in 0..2 {
        bench.set(&meeting()).await.unwrap_err();
    }
    assert_eq!(bench.pbx.link(), LinkState::Down { cause: "it answered with status 503".to_owned() });
    let error = bench.set(&meeting()).await.unwrap_err();
    assert!(crate::chain::Chain(&error).to_string().contains("left alone for 30 s more"), "{error:?}");
    assert_eq!(bench.server.seen().len(), 2);

    bench.clock.advance(Duration::from_secs(30));
    bench.set(&meeting()).await.unwrap();
    assert_eq!(bench.pbx.link(), LinkState::Up);
    assert_eq!(signals.recv().await, Ok(PbxSignal::LinkDown));
    assert_eq!(signals.recv().await, Ok(PbxSignal::LinkUp));
    assert!(signals.try_recv().is_err());
}

#[tokio::test]
async fn each_attempt_is_signed_with_its_own_time_and_the_same_id() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let settings = format!("signing_secrets = [\"whsec_{}\"]\n{SET}", STANDARD.encode([7; 24]));
    let bench = Bench::new(statuses(&[503]).await, &settings);
    let wanted = meeting();
    let (outcome, _) = tokio::join!(bench.set(&wanted), async {
        bench.clock.sleeper(1).await;
        bench.clock.advance(Duration::from_secs(2));
    });
    outcome.unwrap();
    for (seen, time) in bench.server.seen().iter().zip(["1795420800", "1795420802"]) {
        assert_eq!((seen.header("webhook-id"), seen.header("webhook-timestamp")), ("t-1", time));
        // As a receiver would check it: from the raw headers and body.
        let signature =
            STANDARD.decode(seen.header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&[7; 24]).unwrap();
        mac.update(format!("t-1.{time}.{}", seen.body).as_bytes());
        mac.verify_slice(&signature).unwrap();
    }
}

#[tokio::test]
async fn a_signature_is_the_one_that_another_library_makes() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let settings = format!("signing_secrets = [\"whsec_{}\"]\n{SET}", STANDARD.encode([9; 32]));
    let bench = Bench::new(statuses(&[]).await, &settings);
    bench.set(&meeting()).await.unwrap();
    let seen = &bench.server.seen()[0];
    let signature = STANDARD.decode(seen.header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[9; 32]);
    let signed = format!("t-1.{}.{}", seen.header("webhook-timestamp"), seen.body);
    aws_lc_rs::hmac::verify(&key, signed.as_bytes(), &signature).unwrap();
}
