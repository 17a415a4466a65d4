/* Ask `craik serve` for actions, in C++ without a library: ZeroMQ's wire protocol (ZMTP 3.0, https://rfc.zeromq.org/spec/23/) and the
   little of msgpack that requests and replies are made of.

       c++ -std=c++17 -O2 -o client client.cpp
       echo "0.5 0.0" | ./client 127.0.0.1 5577 2 left_arm

   reads observations of as many numbers as the third argument says, one a line, and prints the action for each. */

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

/* A REQ socket of ZeroMQ, connected to one REP socket. */
class Line {
 public:
  Line(const std::string &host, int port, int seconds) {
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_port = htons(static_cast<uint16_t>(port));
    if (inet_pton(AF_INET, host.c_str(), &place.sin_addr) != 1) throw std::runtime_error("no IPv4 address: " + host);
    socket_ = socket(AF_INET, SOCK_STREAM, 0);
    int one = 1;
    timeval patience{seconds, 0};
    setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (socket_ < 0 || connect(socket_, reinterpret_cast<sockaddr *>(&place), sizeof place))
      throw std::runtime_error("nobody listens at " + host);
    std::string greeting(64, '\0');  // signature, version 3.0, mechanism NULL, no server
    greeting[0] = '\xff', greeting[9] = '\x7f', greeting[10] = 3;
    greeting.replace(12, 4, "NULL");
    write(greeting);
    const std::string theirs = read(64);
    if (theirs[0] != '\xff' || theirs[10] < 3) throw std::runtime_error("whoever listens there speaks no ZMTP 3");
    send("\5READY\13Socket-Type" + std::string("\0\0\0\3REQ", 7), COMMAND);
    receive();  // their READY
  }
  ~Line() { close(socket_); }
  Line(const Line &) = delete;
  Line &operator=(const Line &) = delete;

  std::string ask(const std::string &request) {
    send("", MORE);  // the empty frame that REQ puts in front
    send(request, 0);
    receive();
    return receive();
  }

 private:
  enum { MORE = 1, LONG = 2, COMMAND = 4 };
  int socket_;

  void write(const std::string &bytes) {
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t count = ::send(socket_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
      if (count <= 0) throw std::runtime_error("the server hung up");
      done += static_cast<size_t>(count);
    }
  }

  std::string read(size_t size) {
    std::string bytes(size, '\0');
    for (size_t done = 0; done < size;) {
      const ssize_t count = recv(socket_, &bytes[done], size - done, 0);
      if (count <= 0) throw std::runtime_error("no answer from the server");
      done += static_cast<size_t>(count);
    }
    return bytes;
  }

  void send(const std::string &body, int flags) {
    if (body.size() > 255) throw std::runtime_error("requests here have at most 255 bytes");
    write(std::string{static_cast<char>(flags), static_cast<char>(body.size())} + body);
  }

  std::string receive() {
    const bool wide = read(1)[0] & LONG;
    uint64_t size = 0;
    for (const char byte : read(wide ? 8 : 1)) size = size << 8 | static_cast<uint8_t>(byte);
    if (size > 1 << 20) throw std::runtime_error("a reply of more than a MiB");
    return read(size);
  }
};

/* A reply: a map of msgpack from names to texts, bytes and numbers, each kept as its bytes. */
class Reply {
 public:
  explicit Reply(std::string bytes) : bytes_(std::move(bytes)) {
    const int head = number(1);
    if ((head & 0xf0) != 0x80) throw std::runtime_error("a reply that is no map");
    for (int entry = 0; entry < (head & 0x0f); entry++) {
      const std::string name = value();
      found_[name] = value();
    }
  }
  const std::string &operator[](const std::string &name) const { return found_.at(name); }

 private:
  std::string bytes_;
  size_t at_ = 0;
  std::map<std::string, std::string> found_;

  std::string take(size_t size) {
    if (size > bytes_.size() - at_) throw std::runtime_error("a reply that ends too early");
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }

  int number(int size) {
    int value = 0;
    for (const char byte : take(size)) value = value << 8 | static_cast<uint8_t>(byte);
    return value;
  }

  std::string value() {
    const int head = number(1);
    if ((head & 0xe0) == 0xa0) return take(head & 0x1f);            // short text
    if (head == 0xd9 || head == 0xc4) return take(number(1));       // text or bytes
    if (head == 0xda || head == 0xc5) return take(number(2));       // longer ones
    if (head == 0xc2 || head == 0xc3) return head == 0xc3 ? "true" : "";
    if (head == 0xcb) return take(8);                               // a double
    throw std::runtime_error("a reply that holds something else");
  }
};

static std::string text(const std::string &value) {
  if (value.size() > 31) throw std::runtime_error("names here have at most 31 characters: " + value);
  return static_cast<char>(0xa0 | value.size()) + value;
}

/* float32, little-endian, as x86 and ARM keep them. */
static std::string request(const std::vector<float> &observation, const std::string &loop) {
  const size_t size = observation.size() * sizeof(float);
  std::string bytes = "\x84" + text("craik") + "\1" + text("do") + text("act") + text("loop") + text(loop);
  bytes += text("observation") + '\xc4' + static_cast<char>(size);
  return bytes.append(reinterpret_cast<const char *>(observation.data()), size);
}

int main(int count, char **arguments) try {
  if (count != 5) {
    std::cerr << "usage: " << arguments[0] << " HOST PORT NUMBERS LOOP < observations\n";
    return 2;
  }
  Line line(arguments[1], std::stoi(arguments[2]), 60);
  std::vector<float> observation(std::stoul(arguments[3]));
  std::cout.precision(9);
  for (;;) {
    for (size_t at = 0; at < observation.size(); at++) {
      std::string word;
      if (!(std::cin >> word)) {
        if (at) throw std::runtime_error("an observation that ends after " + std::to_string(at) + " numbers");
        return 0;
      }
      char *end = nullptr;
      observation[at] = std::strtof(word.c_str(), &end);  // nan and inf, too, which the server has an answer to
      if (end != word.c_str() + word.size()) throw std::runtime_error("no number: " + word);
    }
    const Reply reply(line.ask(request(observation, arguments[4])));
    if (reply["ok"].empty()) throw std::runtime_error("refused: " + reply["error"]);
    const std::string &action = reply["action"];
    for (size_t at = 0; at + sizeof(float) <= action.size(); at += sizeof(float)) {
      float number;
      std::memcpy(&number, &action[at], sizeof number);
      std::cout << (at ? " " : "") << number;
    }
    std::cout << std::endl;
  }
} catch (const std::exception &error) {
  std::cerr << error.what() << "\n";
  return 1;
}
