#include "load_plan.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/mapped_file.h"
#include "base/random.h"
#include "text/corpus.h"
#include "text/json.h"

namespace atom::cli {
namespace {

constexpr int64_t kDefaultMaxTokens = 64;

/// Words that vocabularies of byte-pair encodings have as one token each, with the space in front of it.
constexpr const char* kPromptWords[] = {
    "time",   "people", "water", "house", "world", "night",  "story",  "music", "light", "river", "table",
    "paper",  "window", "green", "small", "large", "early",  "never",  "under", "above", "about", "after",
    "before", "right",  "other", "where", "there", "family", "school", "city",  "state", "power", "money",
    "system", "work",   "place", "point", "group", "number", "book",   "word",  "hand",  "line",  "point",
    "party",  "order",  "space", "class", "field", "north",  "south",  "east",  "west",  "human", "local",
    "young",  "great",  "long",  "high",  "old",   "new",    "first",  "last",  "next"};

struct Lengths {
  int64_t prompt = 0;
  int64_t output = 0;
};

/// Pairs [prompt tokens, output tokens] of a JSON array.
std::vector<Lengths> read_lengths(const std::filesystem::path& path) {
  constexpr int64_t kMost = 1 << 20;
  const std::string name = path.string();
  const nlohmann::json json = text::parse_json(read_text_file(path), name);
  require(json.is_array() && !json.empty(), "{}: expected an array of pairs [prompt tokens, output tokens]",
          name);
  std::vector<Lengths> lengths;
  for (const auto& pair : json) {
    const bool good = pair.is_array() && pair.size() == 2 && pair[0].is_number_unsigned() &&
                      pair[1].is_number_unsigned() && pair[0] >= 1 && pair[1] >= 1 && pair[0] <= kMost &&
                      pair[1] <= kMost;
    require(good, "{}: pair {}: expected two numbers from 1 to {}", name, lengths.size() + 1, kMost);
    lengths.push_back({pair[0].get<int64_t>(), pair[1].get<int64_t>()});
  }
  return lengths;
}

/// What a document's first user says, or its text; empty where there is none.
std::string first_prompt(const text::Document& document) {
  if (!document.is_conversation()) return document.text;
  for (const auto& message : document.messages) {
    const auto& content = message["content"];
    if (message["role"] == "user" && content.is_string()) return content.get<std::string>();
  }
  return {};
}

/// The first prompts of the file's first `count` conversations that have one of a length that is asked for.
std::vector<std::string> read_prompts(const TrafficOptions& options, size_t count) {
  std::vector<std::string> prompts;
  for (size_t limit = count + count / 2 + 16;; limit *= 2) {
    const text::Corpus corpus = text::read_corpus(options.sharegpt, {.skip = 0, .limit = limit});
    prompts.clear();
    for (const text::Document& document : corpus.documents) {
      std::string prompt = first_prompt(document);
      if (prompt.empty() || prompt.size() > static_cast<size_t>(options.max_prompt_bytes)) continue;
      prompts.push_back(std::move(prompt));
      if (prompts.size() == count) return prompts;
    }
    require(!corpus.complete, "{}: {} conversations begin with a prompt of at most {} bytes, {} are needed",
            options.sharegpt.string(), prompts.size(), options.max_prompt_bytes, count);
  }
}

/// A prompt of random words or token ids.
void add_random(PlannedRequest& request, int64_t tokens, int64_t random_ids, Random random) {
  for (int64_t i = 0; i < tokens; ++i) {
    if (random_ids > 0) {
      request.ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(random_ids))));
    } else {
      if (!request.text.empty()) request.text += ' ';
      request.text += kPromptWords[random.below(std::size(kPromptWords))];
    }
  }
}

}  // namespace

void TrafficOptions::check() const {
  if (!sharegpt.empty() && !lengths.empty()) throw UsageError("--sharegpt and --lengths exclude each other");
  if (!sharegpt.empty() && random_ids > 0)
    throw UsageError("--random-ids makes prompts: it excludes --sharegpt");
}

std::vector<std::vector<PlannedRequest>> plan_traffic(const TrafficOptions& options, int64_t rounds,
                                                      int64_t warm_up) {
  options.check();
  const int64_t a_round = options.requests + warm_up;
  std::vector<Lengths> lengths;
  std::vector<std::string> prompts;
  if (!options.lengths.empty()) lengths = read_lengths(options.lengths);
  if (!options.sharegpt.empty()) prompts = read_prompts(options, static_cast<size_t>(a_round * rounds));

  std::vector<std::vector<PlannedRequest>> plan;
  for (int64_t round = 0; round < rounds; ++round) {
    // Streams of this round: one for the moments, one for the prefix, one for each prompt.
    Random stream(random_word(options.seed, static_cast<uint64_t>(round)));
    Random moments(stream.next());
    const Random prefix(stream.next());
    double due = 0;
    std::vector<PlannedRequest>& requests = plan.emplace_back();
    for (int64_t i = 0; i < a_round; ++i) {
      PlannedRequest& request = requests.emplace_back();
      request.max_tokens = options.max_tokens > 0 ? options.max_tokens : kDefaultMaxTokens;
      add_random(request, options.shared_prefix, options.random_ids, prefix);
      const Random words(stream.next());
      if (!prompts.empty()) {
        std::string& prompt = prompts[static_cast<size_t>(round * a_round + i)];
        request.text += (request.text.empty() ? "" : "\n\n") + std::move(prompt);
      } else if (!lengths.empty()) {
        const Lengths& pair = lengths[static_cast<size_t>(round * a_round + i) % lengths.size()];
        request.max_tokens = options.max_tokens > 0 ? std::min(options.max_tokens, pair.output) : pair.output;
        add_random(request, pair.prompt, options.random_ids, words);
      } else {
        add_random(request, options.prompt_tokens, options.random_ids, words);
      }
      if (i <= warm_up || options.rate <= 0) continue;
      due += -std::log1p(-moments.uniform()) / options.rate;
      request.due = due;
    }
  }
  return plan;
}

}  // namespace atom::cli
