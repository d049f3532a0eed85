#include "text/chat_template.h"

#include <ctime>

#include <gtest/gtest.h>

#include "base/error.h"

namespace atom::text {
namespace {

using Json = nlohmann::ordered_json;

const Json kMessages = {{{"role", "user"}, {"content", "Hi"}}};

std::string render(const std::string& source, const Json& variables = Json::object()) {
  return ChatTemplate(source, "template").render(kMessages, true, variables);
}

std::string error_of(const std::string& source) {
  try {
    render(source);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ChatTemplate, RendersMessagesAndVariables) {
  EXPECT_EQ(render("{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m['content'] }}{% endfor %}"
                   "{% if add_generation_prompt %}>{% endif %}",
                   {{"bos_token", "<s>"}}),
            "<s>[user]Hi>");
  EXPECT_EQ(render("{{ tools is none }}{{ tools is defined }}"), "TrueTrue");
}

TEST(ChatTemplate, ErrorsNameTemplateAndLine) {
  struct Case {
    const char* source;
    const char* expected;
  };
  const Case cases[] = {
      {"a\n{{ x | nosuch }}", "template: line 2: no filter named 'nosuch'"},
      {"\n\n{% include 'x' %}", "template: line 3: the tag 'include'"},
      {"{{ x is nosuch }}", "line 1: no test named 'nosuch'"},
      {"a\n{{ raise_exception('roles must alternate') }}", "template: line 2: roles must alternate"},
      {"{{ x.y }}", "line 1: 'x' is undefined"},
      {"{{ 'a'.encode() }}", "'encode' of 'str' objects is not supported"},
      {"{{ messages.append(1) }}", "append"},
      {"{% for i in range(3) %}", "endfor"},
      {"{{ 9223372036854775807 + 1 }}", "64 bits"},
      {"{{ 99999999999999999999 }}", "63 bits"},
      {"{{ 'a' + 1 }}", "'str' and 'int'"},
      {"{% for i in [1] %}{{ loop([2]) }}{% endfor %}", "recursive"},
      {"{{ ('a' | safe).format(1) }}", "safe text"},
      {"{% if true %}\n{{ 1 | nosuch }}{% endif %}", "line 2: no filter named 'nosuch'"},
  };
  for (const Case& test : cases) {
    EXPECT_NE(error_of(test.source).find(test.expected), std::string::npos)
        << test.source << ": " << error_of(test.source);
  }
  EXPECT_THROW(ChatTemplate("\xFF", "t"), Error);
  EXPECT_THROW(ChatTemplate("x", "t").render(Json::object(), false), Error);
  EXPECT_THROW(ChatTemplate("x", "t").render(Json::array(), false, Json::array()), Error);
}

TEST(ChatTemplate, RunawayTemplatesAreStopped) {
  const std::string many(100'000, '(');
  std::string chain = "{{ x";
  for (int i = 0; i < 100'000; ++i) chain += ".a";
  std::string sum = "{{ 1";
  for (int i = 0; i < 100'000; ++i) sum += "+1";
  std::string nots = "{{ ";
  for (int i = 0; i < 100'000; ++i) nots += "not ";
  std::string ifs;
  for (int i = 0; i < 10'000; ++i) ifs += "{% if 1 %}";
  std::string names;
  for (int i = 0; i < 40'000; ++i) names += fmt::format("{{% set a{} = 1 %}}", i);
  const auto doubled = [](const std::string& first, const std::string& next) {
    return "{% set ns = namespace(x=" + first + ") %}{% for i in range(60) %}{% set ns.x = " + next +
           " %}{% endfor %}";
  };
  const std::string cases[] = {
      "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}",
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
      "{% set ns = namespace(x='a') %}{% for i in range(9999) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(9999) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
      "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}",
      "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = {'a': ns.x} %}{% endfor %}",
      "{% set s = [1] * 90000 %}{% set t = [1] * 90000 %}{% for i in range(90000) %}{% if s == t %}{% endif "
      "%}{% endfor %}",
      "{% set s = 'a' * 900000 %}{% set t = 'a' * 900000 %}{% for i in range(90000) %}{% if s < t %}x{% "
      "endif %}{% endfor %}",
      "{% set s = [[1] * 90000] * 90 %}{% for i in range(90000) %}{% if 2 in s or s is eq(i) or [1] in s "
      "%}{% endif %}{% endfor %}",
      "{% set s = 'é' * 400000 %}{% for i in range(90000) %}{% if s[5] == 'a' %}{% endif %}{% endfor %}",
      "{{ 'a' * 9223372036854775807 }}",
      "{{ [1] * 9223372036854775807 }}",
      "{{ 'aaaa' | replace('', 'b' * 60000000) }}",
      "{{ range(9223372036854775807) }}",
      "{{ 2 ** 9223372036854775807 }}",
      // Little in memory, beyond all bounds when written out, compared or hashed.
      doubled("[1]", "[ns.x, ns.x]") + "{{ ns.x }}",
      doubled("{'a': 1}", "{'a': ns.x, 'b': ns.x}") + "{{ ns.x | tojson(indent=4, sort_keys=true) }}",
      doubled("(1,)", "(ns.x, ns.x)") + "{{ {ns.x: 1} }}",
      doubled("(1,)", "(ns.x, ns.x)") + "{{ '%s' % (ns.x,) }}",
      doubled("(1,)", "(ns.x, ns.x)") + "{{ ns.x | upper }}",
      "{{ ([('a' * 100000)] * 3000) | string }}",
      "{{ ('a,' * 10000000).split(',') | sort | length }}",
      "{{ (range(99999) | list * 40) | sort | length }}",
      "{{ '{:99999999}'.format(1) }}",
      "{{ '%99999999s' % 1 }}",
      "{{ 'a'.center(99999999999) }}",
      "{% macro f(x) %}{{ x(x) }}{% endmacro %}{{ f(f) }}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
      "{% macro f() %}{{ varargs | length }}{% endmacro %}{% for i in range(9999) %}{{ f(*range(99999)) }}{% "
      "endfor %}",
      names,
      "{{ " + many,
      chain + " }}",
      sum + " }}",
      nots + "1 }}",
      ifs,
  };
  for (const std::string& source : cases) {
    EXPECT_NE(error_of(source), "") << source.substr(0, 100);
  }
  // Searching is linear.
  EXPECT_EQ(
      render("{% set s = 'a' * 3000000 %}{% set p = 'a' * 1500000 + 'b' %}{{ s.find(p) }}{{ s.rfind(p) }}"
             "{{ p in s }}{{ s.count(p) }}{{ s.split(p) | length }}{{ s.strip(p) }}"),
      "-1-1False01");
  // These end by themselves, whatever the references among them.
  EXPECT_EQ(
      render("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.l = [ns] %}{{ ns.me.me.l|length }}"),
      "1");
  EXPECT_EQ(render("{% set ns = namespace() %}{% for i in range(5000) %}{% set ns.n = namespace(p=ns.n) %}{% "
                   "endfor %}x"),
            "x");
  EXPECT_EQ(render("{% set ns = namespace() %}{% for i in [1] %}{% macro m() %}{{ i }}{% endmacro %}{% set "
                   "ns.m = m %}{% set ns.l = loop %}"
                   "{% endfor %}{{ ns.m() }}{{ ns.l.index }}"),
            "11");
}

TEST(ChatTemplate, TimeOfDay) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  EXPECT_EQ(render("{{ strftime_now('%Y') }}"), std::to_string(local.tm_year + 1900));
  EXPECT_NE(error_of("{{ strftime_now('%999999d') }}"), "");
}

TEST(ChatTemplate, TextThatIsNotUtf8IsReplaced) {
  const Json messages = {{{"role", "user"}, {"content", "a\xFF"}}};
  EXPECT_EQ(ChatTemplate("{{ messages[0].content }}", "t").render(messages, false), "a\xEF\xBF\xBD");
}

}  // namespace
}  // namespace atom::text
