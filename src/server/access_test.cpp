#include "server/access.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing/temp_dir.h"
#include "server/testing/http_client.h"
#include "server/testing/test_server.h"

namespace atom::server {
namespace {

using std::chrono::milliseconds;
using test_support::ClientResponse;
using test_support::get;
using test_support::HttpClient;
using test_support::post;
using test_support::TempDir;
using test_support::TestServer;

TEST(ApiKeys, AcceptsEachAndNothingElse) {
  const ApiKeys keys({"alpha", "beta-2"});
  for (const char* right :
       {"Bearer alpha", "bearer alpha", "BEARER  alpha", "Bearer beta-2", "Bearer    beta-2"}) {
    EXPECT_TRUE(keys.accepts(right)) << right;
  }
  for (const char* wrong :
       {"", "Bearer", "Bearer ", "alpha", "Bearer alph", "Bearer alpha2", "Bearer Alpha", "Basic alpha",
        "Bearer alpha beta-2", "Bearer alpha,beta-2", "Beareralpha", "Bearer\talpha", "Bearer alpha "}) {
    EXPECT_FALSE(keys.accepts(wrong)) << wrong;
  }
  EXPECT_TRUE(ApiKeys({}).accepts(""));
  for (const char* bad : {"", "a b", "a\n", "\xc3\xa4", "a,b"}) EXPECT_THROW(ApiKeys({bad}), Error) << bad;
}

TEST(ApiKeys, GuardAllButWhatIsPublic) {
  HttpOptions options;
  options.api_keys = {"sesame"};
  options.needs_no_key = [](std::string_view path) { return path == "/health" || path == "/"; };
  TestServer server(options);
  HttpClient client(server.port());
  for (const char* path : {"/", "/health"}) EXPECT_EQ(client.request(get(path)).status, 200u);
  for (const char* path : {"/metrics", "/v1/models", "/health/", "//", "/%2e/health"}) {
    const ClientResponse response = client.request(get(path));
    EXPECT_EQ(response.status, 401u) << path;
    EXPECT_EQ(response.headers.at("www-authenticate"), "Bearer");
    EXPECT_EQ(response.body.find("{\"error\":{\"message\":\"No API key provided"), 0u) << response.body;
  }
  EXPECT_EQ(client.request(post("/v1", "body", "Authorization: Bearer wrong\r\n")).status, 401u);
  // The connection goes on: the body was there, and has been read.
  EXPECT_EQ(client.request(post("/v1", "body", "Authorization: Bearer sesame\r\n")).status, 200u);
  // A body that waits for permission is not asked for.
  const ClientResponse refused =
      client.request("POST /v1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(refused.status, 401u);
  EXPECT_EQ(refused.headers.at("connection"), "close");
  HttpClient twice(server.port());
  EXPECT_EQ(twice.request(get("/v1", "Authorization: Bearer a\r\nAuthorization: Bearer sesame\r\n")).status,
            400u);
}

TEST(Cors, IsOffByDefault) {
  TestServer server;
  HttpClient client(server.port());
  for (const std::string& text :
       {get("/echo", "Origin: https://a.example\r\n"),
        std::string("OPTIONS /echo HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example\r\n"
                    "Access-Control-Request-Method: POST\r\n\r\n")}) {
    const ClientResponse response = client.request(text);
    for (const auto& [name, value] : response.headers) EXPECT_NE(name.rfind("access-control", 0), 0u) << name;
  }
}

TEST(Cors, AllowsTheOriginsThatAreNamed) {
  HttpOptions options;
  options.cors_origins = {"https://a.example", "http://b.example:8080"};
  options.api_keys = {"k"};
  TestServer server(options);
  HttpClient client(server.port());
  const auto preflight = [](const std::string& origin) {
    return "OPTIONS /v1/completions HTTP/1.1\r\nHost: h\r\nOrigin: " + origin +
           "\r\nAccess-Control-Request-Method: POST\r\n"
           "Access-Control-Request-Headers: authorization, content-type,x-stainless-os\r\n\r\n";
  };
  ClientResponse response = client.request(preflight("http://b.example:8080"));
  EXPECT_EQ(response.status, 204u);
  EXPECT_EQ(response.headers.at("access-control-allow-origin"), "http://b.example:8080");
  EXPECT_EQ(response.headers.at("access-control-allow-methods"), "GET, HEAD, POST, OPTIONS");
  EXPECT_EQ(response.headers.at("access-control-allow-headers"),
            "authorization, content-type,x-stainless-os");
  EXPECT_EQ(response.headers.at("vary"), "Origin");
  for (const char* other : {"http://b.example", "https://b.example:8080", "null", "https://a.example.evil"}) {
    response = client.request(preflight(other));
    EXPECT_EQ(response.headers.count("access-control-allow-origin"), 0u) << other;
    EXPECT_EQ(response.headers.count("access-control-allow-headers"), 0u) << other;
  }
  // Errors too can be read.
  response = client.request(get("/v1", "Origin: https://a.example\r\n"));
  EXPECT_EQ(response.status, 401u);
  EXPECT_EQ(response.headers.at("access-control-allow-origin"), "https://a.example");
  response = client.request(get("/v1", "Origin: https://a.example\r\nAuthorization: Bearer k\r\n"));
  EXPECT_EQ(response.status, 200u);
  EXPECT_EQ(response.headers.at("access-control-allow-origin"), "https://a.example");
}

TEST(Cors, AllowsAll) {
  HttpOptions options;
  options.cors_origins = {"*"};
  TestServer server(options);
  HttpClient client(server.port());
  EXPECT_EQ(client.request(get("/echo", "Origin: null\r\n")).headers.at("access-control-allow-origin"), "*");
  for (const char* bad : {"", "example.org", "https://", "https://a/b", "https://a b"}) {
    EXPECT_THROW(Cors({bad}), Error) << bad;
  }
}

/// A key, and a certificate that it signs itself, in PEM files.
struct Certificate {
  explicit Certificate(const TempDir& folder, const std::string& name) {
    EVP_PKEY* pair = EVP_EC_gen("P-256");
    X509* x509 = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
    X509_gmtime_adj(X509_getm_notBefore(x509), 0);
    X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
    X509_set_pubkey(x509, pair);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>("localhost"), -1, -1, 0);
    X509_set_issuer_name(x509, X509_get_subject_name(x509));
    X509_sign(x509, pair, EVP_sha256());
    certificate = (folder / (name + ".pem")).string();
    key = (folder / (name + ".key")).string();
    FILE* file = std::fopen(certificate.c_str(), "w");
    PEM_write_X509(file, x509);
    std::fclose(file);
    file = std::fopen(key.c_str(), "w");
    PEM_write_PrivateKey(file, pair, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(file);
    X509_free(x509);
    EVP_PKEY_free(pair);
  }
  std::string certificate, key;
};

TEST(Tls, ServesAndNoticesWhoGoes) {
  const TempDir folder;
  const Certificate files(folder, "server");
  HttpOptions options;
  options.tls_certificate = files.certificate;
  options.tls_key = files.key;
  TestServer server(options);
  {
    HttpClient client(server.port(), true);
    ASSERT_TRUE(client.ready());
    for (int i = 0; i < 20; ++i) {
      EXPECT_EQ(client.request(post("/echo", std::string(50'000, 't'))).body.size(), 50'012u);
      EXPECT_TRUE(client.request(get("/stream")).complete);
    }
    EXPECT_EQ(client.request(get("/large")).body.size(), size_t{4} << 20);
    const ClientResponse last = client.request("GET /stream HTTP/1.0\r\n\r\n");
    EXPECT_EQ(last.body, "first 0 1 2 3 4 5 6 7 8 9 ");
    EXPECT_TRUE(client.closes_within(milliseconds(3000)));
  }
  for (int way = 0; way < 3; ++way) {
    HttpClient client(server.port(), true, 4096);
    client.send(get("/hold"));
    auto held = server.take();
    test_support::Signal gone;
    held.exchange->on_closed([&] { gone.set(); });
    held.exchange->begin_stream({});
    if (way == 0) client.reset();
    if (way == 1) client.close();
    // Else it reads nothing.
    for (int i = 0; way == 2 && i < 50; ++i) held.exchange->write(std::string(3000, 'x'));
    EXPECT_TRUE(gone.wait(milliseconds(2000))) << way;
  }
  // Without TLS there is nothing to get, and nothing breaks.
  HttpClient plain(server.port());
  EXPECT_EQ(plain.request(get("/echo")).status, 0u);
  HttpClient again(server.port(), true);
  EXPECT_EQ(again.request(get("/echo")).status, 200u);
}

TEST(Tls, RefusesFilesThatCannotBeUsed) {
  const TempDir folder;
  const Certificate one(folder, "one"), other(folder, "other");
  const auto message = [](const std::string& certificate, const std::string& key) -> std::string {
    HttpOptions options;
    options.tls_certificate = certificate;
    options.tls_key = key;
    try {
      TestServer server(options);
      return "serves";
    } catch (const Error& error) {
      return error.what();
    }
  };
  EXPECT_EQ(message(one.certificate, one.key), "serves");
  EXPECT_EQ(message(one.certificate, ""), "TLS needs both a certificate and its key");
  EXPECT_EQ(message("/no/such.pem", one.key).rfind("/no/such.pem: ", 0), 0u);
  EXPECT_EQ(message(one.certificate, one.certificate).rfind(one.certificate + ": ", 0), 0u);
  EXPECT_NE(message(one.certificate, other.key).find(other.key), std::string::npos);
}

}  // namespace
}  // namespace atom::server
