#include "help.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <sstream>

#include "exit_code.h"
#include "table.h"
#include "tandem/core/text.h"

namespace tandem {
namespace {

constexpr size_t kWidth = 80, kColumn = 28;  // of the text; where explanations begin

std::string full_name(const CLI::App& app) {
  return app.get_parent() ? full_name(*app.get_parent()) + " " + app.get_name() : app.get_name();
}

// `left`, then `text` from kColumn on, wrapped at kWidth.
std::string entry(const std::string& left, const std::string& text) {
  const std::string head = "  " + left;
  const std::string body = wrap(text, kWidth, kColumn);
  if (head.size() + 1 >= kColumn) return head + "\n" + body;
  return head + body.substr(head.size());
}

// The lines "command    what it does" of a footer, in two columns if they fit, else one above the other.
std::string examples(const std::string& footer) {
  std::string out;
  std::istringstream lines(footer);
  for (std::string line; std::getline(lines, line);) {
    const size_t gap = line.find("   ", line.find_first_not_of(' '));
    if (line.size() > kWidth && gap != std::string::npos) {
      out += line.substr(0, gap) + "\n      " + line.substr(line.find_first_not_of(' ', gap)) + "\n";
    } else {
      out += line + "\n";
    }
  }
  return out;
}

// "-b, --batch-size N": further long names are aliases and not shown.
std::string flag_name(const CLI::Option& option) {
  std::string name = option.get_snames().empty() ? "    " : "-" + option.get_snames()[0];
  if (!option.get_lnames().empty()) {
    name += (option.get_snames().empty() ? "--" : ", --") + option.get_lnames()[0];
  }
  return option.get_items_expected_max() > 0 ? name + " " + option.get_type_name() : name;
}

std::string flags(const CLI::App& app) {
  std::string out, arguments, general;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) arguments += entry(option->get_name(true), option->get_description());
  }
  if (!arguments.empty()) out += "\nArguments:\n" + arguments;
  for (const std::string& group : app.get_groups()) {
    std::string entries;
    for (const CLI::Option* option : app.get_options()) {
      if (option->get_group() != group || option->get_positional()) continue;
      const std::string value = option->get_default_str();
      entries += entry(flag_name(*option), option->get_description() + (value.empty() ? "" : " [" + value + "]"));
    }
    if (group == "Options") {
      general = "\nGeneral:\n" + entries;
    } else if (!entries.empty()) {
      out += "\n" + group + ":\n" + entries;
    }
  }
  return out + general;
}

std::string usage(const CLI::App& app) {
  std::string out = "Usage: " + full_name(app);
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_positional()) continue;
    out += option->get_required() ? " " + option->get_name(true) : " [" + option->get_name(true) + "]";
  }
  const bool has_commands = !app.get_subcommands(nullptr).empty();
  return out + (has_commands ? " COMMAND [flags]\n" : " [flags]\n");
}

std::string hint(const std::string& word, const std::vector<std::string>& known, const std::string& list) {
  const std::string near = nearest(word, known);
  return near.empty() ? fmt::format("`{} --help` lists them", list) : fmt::format("did you mean {}?", near);
}

}  // namespace

std::string help_text(const CLI::App& app, bool brief) {
  std::string out = wrap(app.get_description(), kWidth) + "\n" + usage(app);
  if (!app.get_footer().empty()) out += "\nExamples:\n" + examples(app.get_footer());
  std::string commands;
  for (const CLI::App* command : app.get_subcommands(nullptr)) {
    const std::string text = command->get_description();
    commands += entry(command->get_name(), text.substr(0, text.find_first_of(".\n")));
  }
  if (!commands.empty()) out += "\nCommands (`" + full_name(app) + " COMMAND --help` says more):\n" + commands;
  if (brief) return out + fmt::format("\n`{} --help` lists every flag.\n", full_name(app));
  return out + flags(app) + "\n" + kExitCodes;
}

const CLI::App& chosen(const CLI::App& program) {
  const auto commands = program.get_subcommands();
  return commands.empty() ? program : chosen(*commands[0]);
}

std::string usage_error(const CLI::App& program, const CLI::ParseError& e) {
  const std::string text = e.what();
  const std::string name = text.substr(0, text.find_first_of(": "));
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&e)) return name + ": expected a value, got none";
  if (dynamic_cast<const CLI::RequiredError*>(&e)) {
    const CLI::App& command = chosen(program);
    return fmt::format("{}: expected {}, got none; see `{} -h`", command.get_name(), name, full_name(command));
  }
  return text;
}

void refuse_unknown(const CLI::App& program) {
  const CLI::App& app = chosen(program);
  const std::vector<std::string> words = app.remaining();
  const std::string where = app.get_parent() ? app.get_name() + ": " : "", name = full_name(app);
  if (words.empty()) {
    if (app.get_subcommands(nullptr).empty()) return;
    throw UsageError(fmt::format("{}expected a command; `{} --help` lists them", where, name));
  }
  const std::string word = words[0].substr(0, words[0].find('='));
  std::vector<std::string> known;
  if (word.starts_with("-")) {
    for (const CLI::Option* option : app.get_options()) {
      for (const std::string& flag : option->get_lnames()) known.push_back("--" + flag);
    }
    throw UsageError(fmt::format("{}unknown flag {}; {}", where, word, hint(word, known, name)));
  }
  for (const CLI::App* command : app.get_subcommands(nullptr)) known.push_back(command->get_name());
  if (known.empty()) throw UsageError(fmt::format("{}unexpected argument '{}'; see `{} -h`", where, word, name));
  throw UsageError(fmt::format("{}unknown command '{}'; {}", where, word, hint(word, known, name)));
}

}  // namespace tandem
