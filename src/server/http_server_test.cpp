#include "server/http_server.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <thread>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/random.h"
#include "server/request_reader.h"
#include "server/response_state.h"
#include "server/testing/http_client.h"
#include "server/testing/test_server.h"

namespace atom::server {
namespace {

using std::chrono::milliseconds;
using test_support::ClientResponse;
using test_support::get;
using test_support::HttpClient;
using test_support::post;
using test_support::TestServer;

#if defined(__has_feature)
constexpr bool kNeedsDescriptors = __has_feature(undefined_behavior_sanitizer);
#elif defined(__SANITIZE_ADDRESS__)
constexpr bool kNeedsDescriptors = true;
#else
constexpr bool kNeedsDescriptors = false;
#endif

nlohmann::json error_of(const ClientResponse& response) {
  return nlohmann::json::parse(response.body).at("error");
}

/// What comes of a request whose bytes come one at a time.
RequestReader::Event read_byte_by_byte(const std::string& request) {
  RequestReader reader(1 << 12, 1 << 12);
  RequestReader::Event event = RequestReader::Event::need_more;
  std::string waiting;
  for (const char byte : request) {
    waiting += byte;
    std::string_view rest = waiting;
    do {
      event = reader.read(rest);
    } while (event == RequestReader::Event::head);
    waiting.erase(0, waiting.size() - rest.size());
  }
  return event;
}

TEST(HttpServer, AnswersManyRequestsOfOneConnection) {
  TestServer server;
  HttpClient client(server.port());
  for (int i = 0; i < 300; ++i) {
    const std::string body = std::string(static_cast<size_t>(i) * 37, 'b') + std::to_string(i);
    const ClientResponse response = client.request(post("/echo?q=" + std::to_string(i), body));
    ASSERT_EQ(response.status, 200u);
    ASSERT_EQ(response.body, "POST /echo q=" + std::to_string(i) + " " + body);
    ASSERT_EQ(response.headers.at("content-type"), "text/plain");
    ASSERT_EQ(response.headers.count("connection"), 0u);
    ASSERT_EQ(response.headers.count("date"), 1u);
  }
  EXPECT_EQ(server.responses().size(), 300u);
}

TEST(HttpServer, KeepsAConnectionBehindAStream) {
  TestServer server;
  HttpClient client(server.port());
  for (int i = 0; i < 20; ++i) {
    const ClientResponse stream = client.request(get("/stream"));
    EXPECT_EQ(stream.headers.at("transfer-encoding"), "chunked");
    EXPECT_TRUE(stream.complete);
    EXPECT_EQ(stream.body, "first 0 1 2 3 4 5 6 7 8 9 ");
    EXPECT_EQ(client.request(get("/echo")).body, "GET /echo  ");
  }
}

TEST(HttpServer, AnswersPipelinedRequestsInOrder) {
  TestServer server;
  HttpClient client(server.port());
  std::string all;
  for (int i = 0; i < 500; ++i) {
    all += i % 3 == 0 ? get("/stream") : post("/echo?" + std::to_string(i), std::string(100, 'p'));
  }
  client.send(all);
  for (int i = 0; i < 500; ++i) {
    const ClientResponse response = client.read_response();
    ASSERT_TRUE(response.complete) << i;
    if (i % 3 == 0) {
      ASSERT_EQ(response.body, "first 0 1 2 3 4 5 6 7 8 9 ");
    } else {
      ASSERT_EQ(response.body, "POST /echo " + std::to_string(i) + " " + std::string(100, 'p'));
    }
  }
}

TEST(HttpServer, TakesRequestsByteByByte) {
  TestServer server;
  HttpClient client(server.port());
  const std::string text =
      "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
      "chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: "
      "x\r\n\r\n" +
      get("/echo");
  for (const char& byte : text) ASSERT_TRUE(client.send({&byte, 1}));
  EXPECT_EQ(client.read_response().body, "POST /echo  abcde");
  EXPECT_EQ(client.read_response().body, "GET /echo  ");
}

TEST(HttpServer, ClosesBehindTheResponseWhereAskedTo) {
  TestServer server;
  HttpClient close(server.port());
  const ClientResponse closed = close.request(get("/echo", "Connection: close\r\n"));
  EXPECT_EQ(closed.headers.at("connection"), "close");
  EXPECT_TRUE(closed.complete);
  EXPECT_TRUE(close.closes_within(milliseconds(3000)));

  HttpClient old(server.port());
  const ClientResponse response = old.request("GET /stream HTTP/1.0\r\n\r\n");
  EXPECT_EQ(response.headers.count("transfer-encoding"), 0u);
  EXPECT_EQ(response.headers.at("connection"), "close");
  EXPECT_EQ(response.body, "first 0 1 2 3 4 5 6 7 8 9 ");
  EXPECT_TRUE(response.complete);

  HttpClient kept(server.port());
  for (int i = 0; i < 3; ++i) {
    const ClientResponse again = kept.request("GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    EXPECT_EQ(again.body, "GET /echo  ");
    EXPECT_EQ(again.headers.at("connection"), "keep-alive");
  }
}

TEST(HttpServer, LetsLargeBodiesComeAndGo) {
  TestServer server;
  HttpClient client(server.port());
  const std::string body(3 << 20, 'u');
  client.send("POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 100u);
  client.send(body);
  EXPECT_EQ(client.read_response().body.size(), body.size() + 12);
  EXPECT_EQ(client.request(get("/large")).body.size(), size_t{4} << 20);
}

TEST(HttpServer, AnswersHeadAndOptions) {
  TestServer server;
  HttpClient client(server.port());
  for (const char* path : {"/echo", "/stream"}) {
    client.send("HEAD " + std::string(path) + " HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_EQ(client.read_response(true).status, 200u);
  }
  const ClientResponse options = client.request("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(options.status, 204u);
  EXPECT_EQ(options.headers.at("allow"), "GET, HEAD, POST, OPTIONS");
  EXPECT_EQ(options.headers.count("access-control-allow-origin"), 0u);
  EXPECT_EQ(client.request(get("/echo")).body, "GET /echo  ");
}

TEST(HttpServer, SaysSoWhenAHandlerGivesNoAnswer) {
  TestServer server;
  HttpClient client(server.port());
  for (const char* path : {"/throw", "/forget"}) {
    const ClientResponse response = client.request(get(path));
    EXPECT_EQ(response.status, 500u);
    EXPECT_EQ(error_of(response).at("type"), "server_error");
  }
  client.send(get("/hold"));
  auto held = server.take();
  held.exchange->begin_stream({});
  held.exchange->write("a part");
  held.exchange.reset();
  EXPECT_FALSE(client.read_response().complete);
}

TEST(HttpServer, RefusesWhatIsMalformed) {
  const std::string long_name(300, 'n');
  const std::pair<std::string, unsigned> cases[] = {
      {"\r\n\r\n\r\n\r\n\r\n\r\n\r\n", 400},
      {"GET\r\n\r\n", 400},
      {"GET /\r\n\r\n", 400},
      {"GET / HTTP/2.0\r\n\r\n", 400},
      {"GET / HTTP/1.2\r\nHost: h\r\n\r\n", 400},
      {"GET / HTTP/0.9\r\n\r\n", 400},
      {"GET / http/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400},
      {"GET / HTTP/1.1\nHost: h\n\n", 400},
      {" GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
      {"G@T / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"CONNECT host:443 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET echo HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET ftp://host/echo HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET http:///echo HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET http://[::/ HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET http://[]/ HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET http://[::1]x/ HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET http://user@host/ HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET http://host:8a/ HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET http://:80/ HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /echo HTTP/1.1\r\nHost: [::\r\n\r\n", 400},
      {"GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
      {"GET /echo HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
      {"GET /% HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /%4 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /%gg HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /%0d%0aX:%20y HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /%7f HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /%ff HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /%c0%af HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {std::string("GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n", 29), 400},
      {"GET /#part HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: h\r\n: value\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: h\r\nX: a\nb\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: h\r\nX: \x01\r\n\r\n", 400},
      {std::string("GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 35), 400},
      {"GET / HTTP/1.1\r\nHost: h\r\nX\xc3\xa4: a\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: h\r\nExpect: a pony\r\n\r\n", 417},
      {"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x1\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1,1\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
       "chunked\r\n\r\n0\r\n\r\n",
       400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n", 400},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\ng\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: h\r\n" + long_name + ": " + std::string(20'000, 'v') + "\r\n\r\n", 431},
      {"GET /" + std::string(20'000, 'a') + " HTTP/1.1\r\nHost: h\r\n\r\n", 431},
  };
  TestServer server;
  for (const auto& [text, status] : cases) {
    HttpClient client(server.port());
    const ClientResponse response = client.request(text);
    EXPECT_EQ(response.status, status) << printable(text);
    if (response.status == 0) continue;
    EXPECT_EQ(response.headers.at("connection"), "close") << printable(text);
    EXPECT_EQ(error_of(response).at("type"), "invalid_request_error") << printable(text);
    client.half_close();
    EXPECT_TRUE(client.closes_within(milliseconds(3000))) << printable(text);
  }
}

TEST(ResponseState, NobodyHearsOfTheEndBehindTheResponse) {
  int closed = 0;
  for (const bool answered : {false, true}) {
    const auto state = std::make_shared<ResponseState>([] {}, 100);
    const auto exchange = state->make_exchange();
    exchange->on_closed([&] { ++closed; });
    if (answered) exchange->send({});
    state->close();
    EXPECT_EQ(closed, 1) << answered;
  }
}

TEST(HttpServer, TakesUnusualRequests) {
  const std::pair<std::string, std::string> cases[] = {
      {"GET http://host:80/echo?a HTTP/1.1\r\nHost: h\r\n\r\n", "GET /echo a "},
      {"GET HTTPS://host/echo HTTP/1.1\r\nHost: h\r\n\r\n", "GET /echo  "},
      {"GET http://[::1]:80/echo HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET /echo  "},
      {"GET /echo HTTP/1.1\r\nHost:\r\n\r\n", "GET /echo  "},
      {"GET http://host?x=1 HTTP/1.1\r\nHost: h\r\n\r\n", "GET / x=1 "},
      {"GET /e%63ho?%zz HTTP/1.1\r\nHost: h\r\n\r\n", "GET /echo %zz "},
      {"GET /%C3%A4/..//b HTTP/1.1\r\nHost: h\r\n\r\n", "GET /\xc3\xa4/..//b  "},
      {"\r\nGET /echo HTTP/1.1\r\nHost: h\r\n\r\n", "GET /echo  "},
      {"BREW /echo HTTP/1.1\r\nHost: h\r\n\r\n", "BREW /echo  "},
      {"GET /echo HTTP/1.1\r\nhOST:h\r\nX:\r\n\r\n", "GET /echo  "},
      {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: CHUNKED\r\n\r\n00001\r\na\r\n000\r\n\r\n",
       "POST /echo  a"},
      {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 001\r\n\r\na", "POST /echo  a"},
      {"GET /echo HTTP/1.0\r\nExpect: something\r\n\r\n", "GET /echo  "},
  };
  TestServer server;
  for (const auto& [text, body] : cases) {
    HttpClient client(server.port());
    EXPECT_EQ(client.request(text).body, body) << printable(text);
    EXPECT_EQ(read_byte_by_byte(text), RequestReader::Event::complete) << printable(text);
  }
}

TEST(HttpServer, SurvivesGarbage) {
  TestServer server;
  Random random(5);
  const std::string sound =
      "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
  for (int i = 0; i < 1000; ++i) {
    std::string text;
    if (i % 2 == 0) {
      text = sound;
      for (uint64_t n = 1 + random.below(4); n > 0; --n) {
        text[random.below(text.size())] = static_cast<char>(random.below(256));
      }
    } else {
      text.resize(random.below(300));
      for (char& c : text) c = static_cast<char>(random.below(256));
    }
    HttpClient client(server.port());
    client.send(text);
    client.half_close();
    const ClientResponse response = client.read_response();
    EXPECT_TRUE(response.status < 500) << printable(text);
    EXPECT_TRUE(text.empty() || response.status >= 200) << printable(text, 300);
  }
  HttpClient client(server.port());
  EXPECT_EQ(client.request(get("/echo")).status, 200u);
}

TEST(HttpServer, BoundsBodies) {
  HttpOptions options;
  options.max_body_bytes = 1000;
  TestServer server(options);
  const std::string exact(1000, 'e'), larger(1001, 'l');
  {
    HttpClient client(server.port());
    EXPECT_EQ(client.request(post("/echo", exact)).status, 200u);
    // Before any of the body has come.
    const ClientResponse response = client.request(
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n");
    EXPECT_EQ(response.status, 413u);
    EXPECT_EQ(error_of(response).at("message"), "the body is larger than 1000 bytes");
    EXPECT_EQ(server.responses().back(), (std::pair<std::string, unsigned>("/echo", 413)));
  }
  {
    HttpClient client(server.port());
    const std::string chunk = "64\r\n" + std::string(100, 'c') + "\r\n";
    client.send("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 11; ++i) client.send(chunk);
    EXPECT_EQ(client.read_response().status, 413u);
  }
  {
    // The response is read although much more is sent than the server reads.
    HttpClient client(server.port());
    client.send(post("/echo", std::string(200'000, 'm')));
    EXPECT_EQ(client.read_response().status, 413u);
  }
  {
    HttpClient client(server.port());
    client.send("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;" +
                std::string(30'000, 'x'));
    EXPECT_EQ(client.read_response().status, 400u);
  }
}

TEST(HttpServer, BoundsHeaders) {
  HttpOptions options;
  options.max_header_bytes = 1000;
  TestServer server(options);
  HttpClient client(server.port());
  EXPECT_EQ(client.request(get("/echo", "X: " + std::string(900, 'x') + "\r\n")).status, 200u);
  std::string many;
  for (int i = 0; i < 100; ++i) many += "X: some value\r\n";
  EXPECT_EQ(client.request(get("/echo", many)).status, 431u);
  HttpClient endless(server.port());
  endless.send("GET /echo HTTP/1.1\r\nHost: h\r\n");
  for (int i = 0; i < 100 && endless.send("X: some value\r\n"); ++i) {
  }
  EXPECT_EQ(endless.read_response().status, 431u);
}

TEST(HttpServer, BoundsConnections) {
  HttpOptions options;
  options.max_connections = 3;
  TestServer server(options);
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<HttpClient>(server.port()));
    EXPECT_EQ(clients.back()->request(get("/echo")).status, 200u);
  }
  HttpClient late(server.port());
  const ClientResponse response = late.request(get("/echo"));
  EXPECT_EQ(response.status, 503u);
  EXPECT_EQ(response.headers.at("retry-after"), "1");
  EXPECT_EQ(error_of(response).at("type"), "server_error");
  clients.pop_back();
  late.close();
  // Its place is free again as soon as the server has seen it go.
  unsigned status = 503;
  for (int i = 0; i < 100 && status == 503; ++i) {
    status = HttpClient(server.port()).request(get("/echo")).status;
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_EQ(status, 200u);
}

TEST(HttpServer, BoundsTimes) {
  HttpOptions options;
  options.request_timeout = milliseconds(300);
  options.idle_timeout = milliseconds(600);
  TestServer server(options);
  HttpClient silent(server.port()), slow(server.port()), slow_body(server.port()), idle(server.port());
  slow_body.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_EQ(idle.request(get("/echo")).status, 200u);
  // Bytes that come now and then gain it no time.
  for (const char byte : std::string("GET /ech")) {
    slow.send({&byte, 1});
    std::this_thread::sleep_for(milliseconds(50));
  }
  const ClientResponse response = slow.read_response();
  EXPECT_EQ(response.status, 408u);
  EXPECT_EQ(error_of(response).at("message"), "the request was not complete within 300 ms");
  EXPECT_EQ(slow_body.read_response().status, 408u);
  EXPECT_TRUE(silent.closes_within(milliseconds(50)));
  EXPECT_FALSE(idle.closes_within(milliseconds(20)));
  EXPECT_TRUE(idle.closes_within(milliseconds(3000)));
}

TEST(HttpServer, ListensWhereItIsTold) {
  HttpOptions options;
  options.host = "::1";
  TestServer server(options);
  HttpClient client(server.port(), false, 0, "::1");
  EXPECT_EQ(client.request(get("/echo")).status, 200u);

  const auto message = [](HttpOptions with) -> std::string {
    try {
      HttpServer second(std::move(with), [](HttpRequest, std::shared_ptr<Exchange>) {});
      return "listens";
    } catch (const Error& error) {
      return error.what();
    }
  };
  options.port = server.port();
  EXPECT_EQ(message(options),
            "cannot listen on [::1]:" + std::to_string(options.port) + ": address already in use");
  TestServer other;
  options.host = "127.0.0.1";
  options.port = other.port();
  EXPECT_EQ(message(options),
            "cannot listen on 127.0.0.1:" + std::to_string(options.port) + ": address already in use");
  options.host = "192.0.2.1";
  EXPECT_EQ(message(options).rfind("cannot listen on 192.0.2.1:", 0), 0u);
  options.host = "no such host";
  EXPECT_EQ(message(options).rfind("cannot listen on no such host:", 0), 0u);
}

TEST(HttpServer, SurvivesTheEndOfDescriptors) {
  if (kNeedsDescriptors)
    GTEST_SKIP() << "the sanitizer looks at types through a pipe, for which there would be no descriptor";
  TestServer server;
  HttpClient before(server.port());
  EXPECT_EQ(before.request(get("/echo")).status, 200u);
  HttpClient during(server.port());
  EXPECT_EQ(during.request(get("/echo")).status, 200u);
  rlimit limit = {};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  // Connections wait in the system's queue: the client's descriptors are there before the server has any
  // left.
  std::vector<int> files;
  rlimit low = limit;
  low.rlim_cur = std::min<rlim_t>(limit.rlim_cur, 64);
  ::setrlimit(RLIMIT_NOFILE, &low);
  int file;
  while ((file = ::open("/dev/null", O_RDONLY)) >= 0) files.push_back(file);
  ::close(files.back());
  files.pop_back();
  HttpClient waiting(server.port());
  waiting.send(get("/echo"));
  EXPECT_EQ(waiting.read_response(false, milliseconds(300)).status, 0u);
  EXPECT_EQ(before.request(get("/echo")).status, 200u);
  for (const int each : files) ::close(each);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  EXPECT_EQ(waiting.read_response().status, 200u);
}

}  // namespace
}  // namespace atom::server
