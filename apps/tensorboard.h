// Event files as TensorBoard reads them: records of one protobuf message, Event, each framed by its length and
// checksums. Format: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "append_file.h"

namespace tandem {

// CRC-32C (Castagnoli), RFC 3720 appendix B.4.
uint32_t crc32c(std::string_view bytes);
// length[8] masked crc of length[4] data masked crc of data[4], little-endian.
std::string tensorboard_record(std::string_view data);

class EventFile {
 public:
  // folder/events.out.tfevents.<wall time>.<host>. `wall_time` in seconds since 1970. Throws IoError.
  EventFile(const std::string& folder, double wall_time);
  void scalar(const std::string& tag, int64_t step, double value, double wall_time);

 private:
  AppendFile file_;
};

}  // namespace tandem
