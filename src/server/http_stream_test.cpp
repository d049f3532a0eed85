// Streams, clients that go away, and the end of the server.

#include <linux/filter.h>
#include <thread>

#include <gtest/gtest.h>

#include "server/http_server.h"
#include "server/testing/http_client.h"
#include "server/testing/test_server.h"

namespace atom::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using test_support::ClientResponse;
using test_support::get;
using test_support::HttpClient;
using test_support::post;
using test_support::Signal;
using test_support::TestServer;

milliseconds since(steady_clock::time_point begin) {
  return std::chrono::duration_cast<milliseconds>(steady_clock::now() - begin);
}

HttpResponse events() {
  HttpResponse response;
  response.content_type = "text/event-stream";
  return response;
}

/// Writes an event every few milliseconds until the client is gone, at most for `limit`. Returns whether it
/// is.
bool stream_until_gone(Exchange& exchange, Signal& gone, milliseconds limit, size_t event_bytes = 100) {
  const auto begin = steady_clock::now();
  while (since(begin) < limit) {
    exchange.write("data: " + std::string(event_bytes, 'e') + "\n\n");
    if (gone.wait(milliseconds(5))) return true;
  }
  return false;
}

TEST(HttpStream, SendsPiecesAsTheyCome) {
  TestServer server;
  HttpClient client(server.port());
  client.send(get("/hold") + get("/echo"));
  auto held = server.take();
  Signal gone;
  held.exchange->on_closed([&] { gone.set(); });
  held.exchange->begin_stream(events());
  std::string seen = client.read_some();
  EXPECT_NE(seen.find("Content-Type: text/event-stream\r\n"), std::string::npos);
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(held.exchange->write("data: " + std::to_string(i) + "\n\n"));
    EXPECT_EQ(client.read_some(), "9\r\ndata: " + std::to_string(i) + "\n\n\r\n");
  }
  EXPECT_TRUE(held.exchange->write(""));
  held.exchange->end();
  EXPECT_EQ(client.read_some().substr(0, 5), "0\r\n\r\n");
  held.exchange.reset();
  client.close();
  EXPECT_FALSE(gone.wait(milliseconds(100)));
}

TEST(HttpStream, SendsWhatManyThreadsWrite) {
  HttpOptions options;
  options.threads = 2;
  TestServer server(options);
  constexpr int kClients = 16, kEvents = 200;
  std::vector<std::unique_ptr<HttpClient>> clients;
  std::vector<std::thread> writers;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(std::make_unique<HttpClient>(server.port()));
    clients.back()->send(get("/hold"));
    writers.emplace_back([exchange = server.take().exchange] {
      exchange->begin_stream(events());
      for (int event = 0; event < kEvents; ++event)
        exchange->write("data: " + std::to_string(event) + "\n\n");
      exchange->end();
    });
  }
  std::string expected;
  for (int event = 0; event < kEvents; ++event) expected += "data: " + std::to_string(event) + "\n\n";
  for (auto& client : clients) EXPECT_EQ(client->read_response().body, expected);
  for (std::thread& writer : writers) writer.join();
}

TEST(HttpStream, NoticesAResetAndAClose) {
  TestServer server;
  for (const bool reset : {true, false}) {
    HttpClient client(server.port());
    client.send(get("/hold"));
    auto held = server.take();
    Signal gone;
    held.exchange->on_closed([&] { gone.set(); });
    held.exchange->begin_stream(events());
    held.exchange->write("data: 0\n\n");
    client.read_some();
    const auto begin = steady_clock::now();
    if (reset) {
      client.reset();
      EXPECT_TRUE(gone.wait(milliseconds(1000)));
    } else {
      client.close();
      EXPECT_TRUE(stream_until_gone(*held.exchange, gone, milliseconds(5000)));
    }
    EXPECT_LT(since(begin), milliseconds(1000));
    EXPECT_FALSE(held.exchange->write("data: 1\n\n"));
    EXPECT_EQ(gone.count(), 1);
    // Told at once, when it has happened already.
    Signal again;
    held.exchange->on_closed([&] { again.set(); });
    EXPECT_EQ(again.count(), 1);
  }
}

TEST(HttpStream, NoticesACloseBeforeTheResponse) {
  TestServer server;
  for (const char* version : {"1.0", "1.1"}) {
    HttpClient client(server.port());
    client.send("GET /hold HTTP/" + std::string(version) + "\r\nHost: h\r\n\r\n");
    auto held = server.take();
    Signal gone;
    held.exchange->on_closed([&] { gone.set(); });
    EXPECT_FALSE(gone.wait(milliseconds(100)));
    client.close();
    EXPECT_TRUE(gone.wait(milliseconds(1000)));
    held.exchange->send({});  // is dropped
  }
  EXPECT_TRUE(server.responses().empty());
}

TEST(HttpStream, AnswersAClientThatClosedItsSendingSide) {
  TestServer server;
  for (const char* version : {"1.0", "1.1"}) {
    HttpClient client(server.port());
    client.send("GET /hold HTTP/" + std::string(version) + "\r\nHost: h\r\n\r\n");
    auto held = server.take();
    client.half_close();
    std::this_thread::sleep_for(milliseconds(600));
    held.exchange->begin_stream(events());
    for (int i = 0; i < 4; ++i) {
      held.exchange->write("data\n\n");
      std::this_thread::sleep_for(milliseconds(100));
    }
    held.exchange->end();
    const ClientResponse response = client.read_response();
    EXPECT_EQ(response.status, 200u);
    EXPECT_TRUE(response.complete);
    EXPECT_EQ(response.body, "data\n\ndata\n\ndata\n\ndata\n\n");
    EXPECT_EQ(response.headers.at("connection"), "close");
    EXPECT_TRUE(client.closes_within(milliseconds(3000)));
  }
  HttpClient client(server.port());
  client.send(get("/echo") + get("/stream") + get("/echo"));
  client.half_close();
  EXPECT_EQ(client.read_response().status, 200u);
  EXPECT_TRUE(client.read_response().complete);
  EXPECT_EQ(client.read_response().status, 200u);
  EXPECT_TRUE(client.closes_within(milliseconds(3000)));
}

TEST(HttpStream, DropsAClientThatReadsNothing) {
  TestServer server;
  HttpClient client(server.port(), false, 4096);
  client.send(get("/hold"));
  auto held = server.take();
  Signal gone;
  held.exchange->on_closed([&] { gone.set(); });
  held.exchange->begin_stream(events());
  // As much as the system takes of it, and a bit.
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(held.exchange->write(std::string(1000, 'x')));
  const auto begin = steady_clock::now();
  EXPECT_TRUE(gone.wait(milliseconds(5000)));
  EXPECT_GT(since(begin), milliseconds(700));
  EXPECT_LT(since(begin), milliseconds(1800));
}

TEST(HttpStream, KeepsAClientThatReadsSlowly) {
  TestServer server;
  HttpClient client(server.port(), false, 8192);
  client.send(get("/hold"));
  auto held = server.take();
  Signal gone;
  held.exchange->on_closed([&] { gone.set(); });
  held.exchange->begin_stream(events());
  const std::string all(200'000, 's');
  EXPECT_TRUE(held.exchange->write(all));
  size_t received = 0;
  const auto begin = steady_clock::now();
  while (since(begin) < milliseconds(2500)) {
    received += client.read_some().size();
    std::this_thread::sleep_for(milliseconds(200));
  }
  EXPECT_EQ(gone.count(), 0);
  held.exchange->end();
  while (received < all.size()) {
    const std::string piece = client.read_some();
    if (piece.empty()) break;
    received += piece.size();
  }
  EXPECT_GT(received, all.size());
}

TEST(HttpStream, DropsAClientForWhomTooMuchWaits) {
  HttpOptions options;
  options.max_unsent_bytes = 100'000;
  options.write_timeout = milliseconds(60'000);
  TestServer server(options);
  HttpClient client(server.port(), false, 4096);
  client.send(get("/hold"));
  auto held = server.take();
  Signal gone;
  held.exchange->on_closed([&] { gone.set(); });
  held.exchange->begin_stream(events());
  // One piece may be larger, where nothing waits before it.
  EXPECT_TRUE(held.exchange->write(std::string(300'000, 'x')));
  bool taken = true;
  for (int i = 0; i < 100 && taken; ++i) taken = held.exchange->write(std::string(1000, 'x'));
  EXPECT_FALSE(taken);
  EXPECT_TRUE(gone.wait(milliseconds(1000)));
}

/// Makes the system throw away whatever comes for the client: neither data nor acknowledgements nor resets
/// get through, as when the cable is pulled.
void pull_the_cable(int socket) {
  sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
  const sock_fprog program = {1, &drop};
  ASSERT_EQ(::setsockopt(socket, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), 0);
}

TEST(HttpStream, NoticesAClientWhoseCableIsPulled) {
  TestServer server;
  HttpClient client(server.port());
  client.send(get("/hold"));
  auto held = server.take();
  Signal gone;
  held.exchange->on_closed([&] { gone.set(); });
  held.exchange->begin_stream(events());
  held.exchange->write("data: 0\n\n");
  client.read_some();
  pull_the_cable(client.socket());
  const auto begin = steady_clock::now();
  EXPECT_TRUE(stream_until_gone(*held.exchange, gone, milliseconds(6000), 10));
  EXPECT_LT(since(begin), milliseconds(1800));
}

TEST(HttpStream, NoticesAPulledCableWithNothingToSend) {
  TestServer server;
  HttpClient client(server.port());
  client.send(get("/hold"));
  auto held = server.take();
  Signal gone;
  held.exchange->on_closed([&] { gone.set(); });
  // A client that is there stays: it answers the probes.
  EXPECT_FALSE(gone.wait(milliseconds(2500)));
  pull_the_cable(client.socket());
  EXPECT_TRUE(gone.wait(milliseconds(4000)));
}

TEST(HttpStream, BoundsWhatComesEarly) {
  TestServer server;
  HttpClient client(server.port());
  client.send(get("/hold"));
  auto held = server.take();
  const int small = 1 << 16;
  ::setsockopt(client.socket(), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
  const timeval limit = {0, 300'000};
  ::setsockopt(client.socket(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  // The system takes some of it, but the server does not read on for ever.
  EXPECT_FALSE(client.send(std::string(64 << 20, 'p')));
  held.exchange->send({});
  EXPECT_EQ(client.read_response().status, 200u);
}

TEST(HttpStream, DrainLetsResponsesEnd) {
  TestServer server;
  HttpClient busy(server.port()), streaming(server.port()), idle(server.port()), half(server.port());
  EXPECT_EQ(idle.request(get("/echo")).status, 200u);
  half.send("GET /ec");
  busy.send(get("/hold"));
  auto held = server.take();
  streaming.send(get("/hold"));
  auto stream = server.take();
  stream.exchange->begin_stream(events());
  std::thread draining([&] { EXPECT_TRUE(server.server->drain(milliseconds(10'000))); });
  EXPECT_TRUE(idle.closes_within(milliseconds(1000)));
  EXPECT_TRUE(half.closes_within(milliseconds(1000)));
  EXPECT_THROW(HttpClient{server.port()}, Error);
  held.exchange->send({});
  const ClientResponse response = busy.read_response();
  EXPECT_EQ(response.status, 200u);
  EXPECT_EQ(response.headers.at("connection"), "close");
  stream.exchange->write("data\n\n");
  stream.exchange->end();
  EXPECT_TRUE(streaming.read_response().complete);
  busy.close();
  streaming.close();
  draining.join();
}

TEST(HttpStream, DrainEndsInTime) {
  TestServer server;
  HttpClient client(server.port());
  client.send(get("/hold"));
  auto held = server.take();
  Signal gone;
  held.exchange->on_closed([&] { gone.set(); });
  const auto begin = steady_clock::now();
  EXPECT_FALSE(server.server->drain(milliseconds(200)));
  EXPECT_LT(since(begin), milliseconds(1000));
  EXPECT_EQ(gone.count(), 0);
  server.server->stop();
  EXPECT_EQ(gone.count(), 1);
  EXPECT_TRUE(client.closes_within(milliseconds(100)));
  EXPECT_FALSE(held.exchange->write("too late"));
  server.server->stop();
  server.server.reset();
  EXPECT_FALSE(held.exchange->write("much too late"));
}

TEST(HttpStream, StopsUnderLoad) {
  for (int round = 0; round < 5; ++round) {
    HttpOptions options;
    options.threads = 2;
    TestServer server(options);
    std::vector<std::thread> clients;
    for (int i = 0; i < 4; ++i) {
      clients.emplace_back([port = server.port()] {
        try {
          while (true) {
            HttpClient client(port);
            while (client.request(get("/stream")).complete) {
            }
          }
        } catch (const Error&) {
          // Nobody listens any more.
        }
      });
    }
    std::this_thread::sleep_for(milliseconds(50));
    server.server->stop();
    for (std::thread& client : clients) client.join();
  }
}

}  // namespace
}  // namespace atom::server
