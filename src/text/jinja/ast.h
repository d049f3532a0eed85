#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/function.h"
#include "text/jinja/value.h"

namespace atom::text::jinja {

struct Expression;
struct Statement;
using ExpressionPtr = std::unique_ptr<Expression>;
using Body = std::vector<std::unique_ptr<Statement>>;

enum class ExpressionKind {
  kConstant,   // constant
  kName,       // name
  kList,       // children
  kTuple,      // children
  kDict,       // children: key, value, key, value, ...
  kNot,        // children[0]
  kNegative,   // children[0]
  kPositive,   // children[0]
  kBinary,     // name is the operator: + - * / // % **
  kAnd,        // children[0], children[1]
  kOr,         // children[0], children[1]
  kCompare,    // children[0], then one child for each of `operators`
  kConcat,     // children
  kCondition,  // children: condition, then, else (may be null)
  kAttribute,  // children[0] . name
  kSubscript,  // children[0] [ children[1] ]
  kSlice,      // children: value, start, stop, step (may be null)
  kCall,       // children[0] ( children[1:], named )
  kFilter,     // children[0] (null inside a filter block) | name ( children[1:], named )
  kTest,       // children[0] is name ( children[1:], named )
};

struct Expression {
  ExpressionKind kind;
  int line;
  int depth = 1;  ///< of the tree from here down
  Value constant;
  std::string name;
  std::vector<std::string> operators;
  std::vector<ExpressionPtr> children;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr spread;        ///< of a call: `*spread`
  ExpressionPtr spread_named;  ///< of a call: `**spread_named`
  BuiltIn built_in = nullptr;  ///< of a filter or test
};

/// What an assignment writes to: a name, an attribute of a namespace, or several of them.
struct Target {
  std::string name;
  std::string attribute;      ///< not empty: `name.attribute`
  std::vector<Target> parts;  ///< not empty: unpack into these
};

/// Names that mean something to the macro whose body they stand in: it takes more arguments, or a caller.
struct Mentions {
  bool varargs = false;
  bool kwargs = false;
  bool caller = false;
};

/// A macro, or the body of a call block.
struct Macro {
  std::string name;
  int line = 0;
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  ///< of the last parameters
  Body body;
  Mentions mentions;  ///< in the body
};

enum class StatementKind {
  kData,         // text
  kOutput,       // value
  kIf,           // branches
  kFor,          // target, value, condition, body, otherwise
  kSet,          // target, value
  kSetBlock,     // target, value (a filter or null), body
  kMacro,        // macro
  kCallBlock,    // macro (the caller), value (a call)
  kFilterBlock,  // value (a filter), body
  kWith,         // bindings, body
  kBreak,
  kContinue,
  kGroup,  // body
};

struct Statement {
  StatementKind kind;
  int line;
  std::string text;
  ExpressionPtr value;
  ExpressionPtr condition;
  Target target;
  Body body;
  Body otherwise;
  std::vector<std::pair<ExpressionPtr, Body>> branches;  ///< the condition of a final else is null
  std::vector<std::pair<Target, ExpressionPtr>> bindings;
  std::unique_ptr<Macro> macro;
  bool recursive = false;  ///< a `for` whose loop can be called
};

}  // namespace atom::text::jinja
