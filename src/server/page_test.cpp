#include "server/page.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "checkpoint/testing/oracle.h"
#include "server/page_files.h"

namespace atom::server {
namespace {

std::optional<HttpResponse> get(std::string path, std::string method = "GET",
                                std::string if_none_match = "") {
  HttpRequest request;
  request.method = std::move(method);
  request.path = std::move(path);
  if (!if_none_match.empty()) request.headers.emplace_back("if-none-match", std::move(if_none_match));
  return page_response(request);
}

std::map<std::string, std::string> headers_of(const HttpResponse& response) {
  return {response.headers.begin(), response.headers.end()};
}

TEST(Page, FilesAreTheBytesOfTheTree) {
  const std::filesystem::path folder = test_support::source_root() / "src" / "server";
  size_t bytes = 0;
  std::set<std::string> embedded;
  for (const EmbeddedFile& file : page_files()) {
    std::ifstream in(folder / file.name, std::ios::binary);
    ASSERT_TRUE(in) << file.name;
    EXPECT_EQ(file.content, std::string(std::istreambuf_iterator<char>(in), {})) << file.name;
    EXPECT_EQ(file.sha256.size(), 64u);
    bytes += file.content.size();
    embedded.emplace(file.name);
  }
  EXPECT_LT(bytes, 40u << 10);
  std::set<std::string> there;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "page")) {
    there.insert("page/" + entry.path().filename().string());
  }
  EXPECT_EQ(embedded, there);
}

TEST(Page, IsServedWithItsHeaders) {
  const std::map<std::string, std::string> types = {{"/", "text/html; charset=utf-8"},
                                                    {"/page.css", "text/css; charset=utf-8"},
                                                    {"/page.js", "text/javascript; charset=utf-8"},
                                                    {"/live.js", "text/javascript; charset=utf-8"},
                                                    {"/favicon.svg", "image/svg+xml"}};
  std::set<std::string> tags;
  for (const auto& [path, type] : types) {
    const auto response = get(path);
    ASSERT_TRUE(response) << path;
    EXPECT_TRUE(is_page_path(path));
    EXPECT_EQ(response->status, 200u);
    EXPECT_EQ(response->content_type, type);
    EXPECT_FALSE(response->body.empty());
    auto headers = headers_of(*response);
    EXPECT_TRUE(headers["Content-Security-Policy"].starts_with("default-src 'self';"));
    EXPECT_EQ(headers["X-Content-Type-Options"], "nosniff");
    EXPECT_EQ(headers["Cache-Control"], "no-cache");
    EXPECT_TRUE(tags.insert(headers["ETag"]).second) << "two files with one tag";
    EXPECT_EQ(get(path, "HEAD")->body, response->body);
  }
  EXPECT_TRUE(get("/")->body.starts_with("<!doctype html>"));
}

TEST(Page, LeavesOtherPathsAndMethodsToOthers) {
  for (const char* path : {"", "index.html", "/index.html", "/page", "/page/page.js", "/page.js/", "//",
                           "/../page.js", "/v1/models", "/metrics"}) {
    EXPECT_FALSE(get(path)) << path;
    EXPECT_FALSE(is_page_path(path)) << path;
  }
  EXPECT_FALSE(get("/", "POST"));
  EXPECT_FALSE(get("/page.js", "DELETE"));
}

TEST(Page, IsNotSentTwice) {
  const std::string tag = headers_of(*get("/page.js"))["ETag"];
  for (const std::string& header :
       {tag, "W/" + tag, "\"other\", " + tag, "\"a\",\tW/" + tag + " ,\"b\"", std::string("*")}) {
    const auto response = get("/page.js", "GET", header);
    EXPECT_EQ(response->status, 304u) << header;
    EXPECT_TRUE(response->body.empty());
    EXPECT_EQ(headers_of(*response)["ETag"], tag);
  }
  for (const std::string& header :
       {std::string("\"other\""), tag.substr(1, 32), tag + "x", std::string(",,")}) {
    EXPECT_EQ(get("/page.js", "GET", header)->status, 200u) << header;
  }
}

}  // namespace
}  // namespace atom::server
