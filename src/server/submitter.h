#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/engine.h"

namespace atom::server {

/// What the API needs of an engine. Tests put a scripted one in its place.
class Submitter {
 public:
  virtual ~Submitter() = default;
  /// As Engine's methods of these names.
  virtual std::vector<uint64_t> submit(std::vector<Submission> requests) = 0;
  virtual void cancel(uint64_t id) = 0;
  virtual EngineStats stats() const = 0;
  /// Tokens of a prompt and its answer together, at most.
  virtual int64_t context() const = 0;
};

/// The engine itself, which must outlive the result.
std::unique_ptr<Submitter> submitter_of(Engine& engine);

}  // namespace atom::server
