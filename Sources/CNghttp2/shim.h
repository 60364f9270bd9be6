// nghttp2 as Swift sees it. One wrapper per union member that Swift would copy whole; no logic.
#ifndef GATEWAY_CNGHTTP2_SHIM_H
#define GATEWAY_CNGHTTP2_SHIM_H

#include <nghttp2/nghttp2.h>

static inline int32_t gw_frame_stream(const nghttp2_frame *frame) { return frame->hd.stream_id; }
static inline uint8_t gw_frame_type(const nghttp2_frame *frame) { return frame->hd.type; }
static inline uint8_t gw_frame_flags(const nghttp2_frame *frame) { return frame->hd.flags; }
static inline size_t gw_frame_length(const nghttp2_frame *frame) { return frame->hd.length; }
static inline size_t gw_frame_padding(const nghttp2_frame *frame) { return frame->data.padlen; }
static inline int gw_frame_category(const nghttp2_frame *frame) { return frame->headers.cat; }
static inline uint32_t gw_frame_error(const nghttp2_frame *frame) { return frame->rst_stream.error_code; }
static inline int32_t gw_goaway_last_stream(const nghttp2_frame *frame) { return frame->goaway.last_stream_id; }

#endif
