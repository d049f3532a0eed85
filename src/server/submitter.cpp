#include "server/submitter.h"

#include <utility>

#include "server/api.h"

namespace atom::server {
namespace {

class EngineSubmitter : public Submitter {
 public:
  explicit EngineSubmitter(Engine& engine) : engine_(engine) {}

  std::vector<uint64_t> submit(std::vector<Submission> requests) override {
    return engine_.submit(std::move(requests));
  }
  void cancel(uint64_t id) override { engine_.cancel(id); }
  EngineStats stats() const override { return engine_.stats(); }
  int64_t context() const override { return engine_.options().context; }

 private:
  Engine& engine_;
};

}  // namespace

std::unique_ptr<Submitter> submitter_of(Engine& engine) {
  return std::make_unique<EngineSubmitter>(engine);
}

Api::Api(Engine& engine, const text::Tokenizer& tokenizer, ApiOptions options)
    : Api(submitter_of(engine), tokenizer, std::move(options)) {}

}  // namespace atom::server
