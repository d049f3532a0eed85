#include "text/corpus.h"

#include <gtest/gtest.h>

#include "base/byte_level.h"
#include "base/error.h"
#include "text/oracle_testing.h"
#include "text/record_reader.h"

namespace atom::text {
namespace {

std::string error_of(const std::filesystem::path& path, const CorpusOptions& options = {}) {
  try {
    read_corpus(path, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Corpus, ReadsEveryKindOfRecord) {
  const TempDir folder;
  const auto path = folder.path() / "c.jsonl";
  save_file(path,
            "{\"conversations\": [{\"from\": \"human\", \"value\": \"Hi {[\\\"\"}, {\"from\": \"gpt\", "
            "\"value\": \"Yo\"}]}\n"
            "{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}]}\n\n{\"text\": "
            "\"plain\"}\n{\"conversations\": []}\n");
  const std::vector<Document> documents = read_corpus(path).documents;
  ASSERT_EQ(documents.size(), 3u);
  EXPECT_EQ(documents[0].messages.dump(),
            R"([{"role":"user","content":"Hi {[\""},{"role":"assistant","content":"Yo"}])");
  EXPECT_EQ(documents[1].messages[0]["role"], "system");
  EXPECT_FALSE(documents[2].is_conversation());
  EXPECT_EQ(documents[2].text, "plain");
  EXPECT_EQ(read_corpus(path, {.skip = 1, .limit = 1}).documents[0].messages[0]["content"], "S");
}

TEST(Corpus, ArrayThatIsCutOff) {
  const TempDir folder;
  const auto path = folder.path() / "c.json";
  const std::string whole = "[{\"text\": \"a\"}, {\"text\": \"b\"},\n{\"text\": \"c\"}]";
  save_file(path, whole);
  EXPECT_EQ(read_corpus(path).documents.size(), 3u);
  // Wherever the file is cut, the whole records before the cut are read, and no error is raised while there
  // is one.
  for (size_t size = 15; size < whole.size(); ++size) {
    save_file(path, whole.substr(0, size));
    const size_t expected = size >= whole.size() - 1 ? 3 : size >= 29 ? 2 : 1;
    EXPECT_EQ(read_corpus(path).documents.size(), expected) << size;
  }
}

TEST(Corpus, ErrorsNameTheFile) {
  const TempDir folder;
  const auto write = [&](const char* name, const std::string& text) {
    save_file(folder.path() / name, text);
    return folder.path() / name;
  };
  const std::filesystem::path bad[] = {
      folder.path() / "missing.json",
      folder.path() / "missing.txt",
      folder.path(),
      write("empty.txt", " \n"),
      write("binary.txt", std::string("a\0b", 3)),
      write("empty.json", ""),
      write("list.json", "[]"),
      write("number.json", "[1, 2]"),
      write("rest.json", "[{\"text\": \"a\"}] x"),
      write("comma.json", "[{\"text\": \"a\"} {\"text\": \"b\"}]"),
      write("fields.json", "[{\"other\": 1}]"),
      write("role.json", "[{\"conversations\": [{\"from\": \"alien\", \"value\": \"x\"}]}]"),
      write("type.json", "[{\"messages\": [{\"role\": 1, \"content\": \"x\"}]}]"),
      write("syntax.json", "[{\"text\" \"a\"}]"),
      write("middle.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b}\n{\"text\": \"c\"}\n"),
      write("brace.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"\n{\"text\": \"c\"}\n"),
      write("deep.json", "[{\"text\": " + std::string(5000, '[') + std::string(5000, ']') + "}]"),
  };
  for (const auto& path : bad)
    EXPECT_NE(error_of(path).find(path.string()), std::string::npos) << path << error_of(path);
  EXPECT_NE(error_of(write("one.json", "[{\"text\": \"a\"}]"), {.skip = 5}), "");
}

TEST(Corpus, SaysWhetherThereIsMore) {
  const TempDir folder;
  save_file(folder.path() / "two.JSONL", "{\"text\": \"a\", \"messages\": []}\n{\"text\": \"b\"}\n");
  EXPECT_FALSE(read_corpus(folder.path() / "two.JSONL", {.limit = 1}).complete);
  const Corpus all = read_corpus(folder.path() / "two.JSONL", {.limit = 3});
  EXPECT_TRUE(all.complete);
  EXPECT_EQ(all.documents.at(0).text, "a");
}

TEST(Corpus, IllFormedUtf8IsLetPass) {
  const TempDir folder;
  save_file(folder.path() / "latin1.txt", "caf\xe9");
  EXPECT_EQ(read_corpus(folder.path() / "latin1.txt").documents.at(0).text, "caf\xe9");
}

Tokenizer byte_tokenizer() {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocab[byte_level_encode(std::string(1, static_cast<char>(byte)))] = byte;
  return Tokenizer::from_json(
      {{"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
       {"decoder", {{"type", "ByteLevel"}}},
       {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}},
      "bytes");
}

TEST(Corpus, TokensOfAllDocuments) {
  const Tokenizer tokenizer = byte_tokenizer();
  std::vector<Document> documents(3);
  documents[0].text = "ab";
  documents[1].messages = {{{"role", "user"}, {"content", "c"}}};
  documents[2].messages = {{{"role", "robot"}, {"content", "d"}}};
  const ChatTemplate chat(
      "{% for m in messages %}{% if m.role == 'robot' %}{{ raise_exception('no robots') }}{% endif %}"
      "<{{ m.content }}>{% endfor %}",
      "chat");
  EXPECT_EQ(tokenizer.decode(tokenize_corpus(documents, tokenizer, &chat)), "ab<c>");
  EXPECT_EQ(tokenizer.decode(tokenize_corpus(documents, tokenizer, nullptr)), "abc\nd\n");
  EXPECT_EQ(tokenize_corpus(documents, tokenizer, &chat, nlohmann::ordered_json::object(), 3).size(), 3u);
  documents.erase(documents.begin(), documents.begin() + 2);
  EXPECT_THROW(tokenize_corpus(documents, tokenizer, &chat), Error);
}

TEST(Corpus, ShareGpt) {
  const std::string path = environment("ATOM_TEST_SHAREGPT");
  if (path.empty()) GTEST_SKIP() << "ATOM_TEST_SHAREGPT is not set";
  RecordReader reader(path);
  while (reader.next()) {
  }
  EXPECT_EQ(reader.count(), 17671u);
  EXPECT_TRUE(reader.cut_off());
  const std::vector<Document> documents = read_corpus(path, {.skip = 100, .limit = 20}).documents;
  EXPECT_GE(documents.size(), 15u);
  for (const Document& document : documents) EXPECT_TRUE(document.is_conversation());
}

}  // namespace
}  // namespace atom::text
