//! Many who ask at once, and who ask and go away.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::sample;
use crate::api::fake::Fake;
use crate::api::{Limits, web};
use crate::metrics::Scraper;

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_thousand_at_once_share_few_scrapes() {
    let fake = Fake::default();
    fake.world().sample = sample(10);
    let scraper = Scraper::new(fake.clone());
    let mut asking = JoinSet::new();
    for _ in 0..1000 {
        let scraper = scraper.clone();
        asking.spawn(async move { scraper.scrape().await.unwrap().len() });
    }
    let told = timeout(DEADLINE, asking.join_all()).await.unwrap();
    assert!(told.iter().all(|bytes| *bytes > 1000));
    assert!(fake.world().samples <= 3, "{} samples", fake.world().samples);
}

#[tokio::test]
async fn an_answer_is_younger_than_its_question() {
    let fake = Fake::default();
    let scraper = Scraper::new(fake.clone());
    for stations in 1..4 {
        fake.world().sample.stations = stations;
        let text = scraper.scrape().await.unwrap();
        assert!(String::from_utf8_lossy(&text).contains(&format!("\nweft_stations {stations}\n")));
    }
}

#[tokio::test]
async fn who_asks_and_goes_away_holds_up_nobody_and_begins_no_second_scrape() {
    let fake = Fake::default();
    fake.world().sample = sample(10);
    let scraper = Scraper::new(fake.clone());
    for _ in 0..100 {
        // Long enough to be asked, mostly too short to be answered.
        timeout(Duration::from_micros(50), scraper.scrape()).await.ok();
    }
    timeout(DEADLINE, scraper.scrape()).await.unwrap().unwrap();
    assert!(fake.world().samples <= 101);
}

#[tokio::test]
async fn who_does_not_read_is_shown_out_and_others_are_served() {
    let fake = Fake::default();
    // More than a socket holds.
    fake.world().sample = sample(2000);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits { connections: 1, patience: Duration::from_millis(300), ..web::LIMITS };
    let server = tokio::spawn(web::serve(listener, fake, limits, std::future::pending()));
    let ask = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        stream
    };
    let mut lazy = ask().await;
    // There is one seat: it is free again only when the lazy one has lost it.
    let mut text = String::new();
    timeout(DEADLINE, ask().await.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.contains("\nweft_scrape_duration_seconds "));
    let mut rest = Vec::new();
    lazy.read_to_end(&mut rest).await.ok();
    assert!(rest.len() < text.len(), "the lazy one was served to the end");
    server.abort();
}
