// A stack and the point it was left at. Two bodies: sixteen instructions on x86-64, ucontext elsewhere.
//
// The instructions save what the System V calling convention has a callee keep, and nothing more: a signal mask, which
// costs ucontext a system call, does not change between the threads of a kernel.
#pragma once
#include <cstddef>

#if defined(__x86_64__) && !defined(EMU_PORTABLE_FIBERS)
#define EMU_ASSEMBLY_FIBERS 1
#else
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <pthread.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emu {

#if EMU_ASSEMBLY_FIBERS
extern "C" void emu_switch(void** save, void* load);
asm(R"(
.text
.type emu_switch, @function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch, .-emu_switch
)");
#endif

// Either a fiber, with a stack, or the place an OS thread left its own stack at.
class Fiber {
public:
    // Makes the fiber begin `entry` when it is next resumed. `entry` never returns.
    void prepare(unsigned char* stack, size_t bytes, void (*entry)()) {
        stack_ = stack;
        bytes_ = bytes;
#if EMU_ASSEMBLY_FIBERS
        // From the top: room below which a call's frame is aligned, a return address for `entry` that is never used,
        // `entry` itself for the `ret` of the switch, and six registers.
        void** top = reinterpret_cast<void**>(stack + bytes - 64);
        *--top = nullptr;
        *--top = reinterpret_cast<void*>(entry);
        for (int i = 0; i < 6; i++) *--top = nullptr;
        point_ = top;
#else
        getcontext(&context_);
        context_.uc_stack.ss_sp = stack;
        context_.uc_stack.ss_size = bytes;
        context_.uc_link = nullptr;
        makecontext(&context_, entry, 0);
#endif
    }

    // Leaves this stack for `next` and returns when somebody resumes it.
    void switch_to(Fiber& next) {
#if defined(__SANITIZE_ADDRESS__)
        void* fake_stack;
        __sanitizer_start_switch_fiber(&fake_stack, next.stack_, next.bytes_);
#endif
#if EMU_ASSEMBLY_FIBERS
        emu_switch(&point_, next.point_);
#else
        swapcontext(&context_, &next.context_);
#endif
#if defined(__SANITIZE_ADDRESS__)
        arrived(fake_stack);
#endif
    }

#if defined(__SANITIZE_ADDRESS__)
    // Tells the sanitizer that a switch has ended; a fiber's first act, with null.
    static void arrived(void* fake_stack) { __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr); }
#else
    static void arrived(void*) {}
#endif

    // Makes this stand for the stack of the calling OS thread, whose bounds only the sanitizer asks for.
    void adopt_own_stack() {
#if defined(__SANITIZE_ADDRESS__)
        pthread_attr_t attributes;
        void* stack;
        pthread_getattr_np(pthread_self(), &attributes);
        pthread_attr_getstack(&attributes, &stack, &bytes_);
        pthread_attr_destroy(&attributes);
        stack_ = static_cast<unsigned char*>(stack);
#endif
    }

private:
    unsigned char* stack_ = nullptr;
    size_t bytes_ = 0;
#if EMU_ASSEMBLY_FIBERS
    void* point_ = nullptr;
#else
    ucontext_t context_;
#endif
};

}  // namespace emu
