// Downloads MNIST and Fashion-MNIST: the one part of Tandem that uses the network, and only when told to.
#pragma once

#include <string>
#include <vector>

namespace tandem {

struct FetchOptions {
  std::string dir;                    // the folder that gets the files; empty: the cache
  std::vector<std::string> mirrors;   // http(s) addresses of folders, tried in order; empty: the public ones
  double connect_seconds = 8;         // for all mirrors together, when none answers
  bool unless_failed_lately = false;  // give up at once if the last try failed within a day
};

// Puts the four files of `name` into the folder, each whole and with the published checksum or not at all, and
// returns the folder. Files that are there and right are kept; a wrong one is kept as <file>.replaced. Progress
// goes to stderr. Throws ValueError (name or mirror), DataError (no mirror has it, TANDEM_OFFLINE is set, the
// folder holds the other data set) or IoError (folder or disk).
std::string fetch_mnist(const std::string& name, const FetchOptions& options);

}  // namespace tandem
