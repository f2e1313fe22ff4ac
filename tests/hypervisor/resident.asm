; A guest that never ends and changes all that a processor has: for a host that must not notice.
; PAE paging of its own; general, segment, debug, FPU and SSE registers; system-call and base MSRs; page faults; INT n.
.origin 0x100000
.entry start
.macro MSR number
        mov ecx, \number
        mov eax, 0x13579b00
        mov edx, 0x2468
        wrmsr
.endm
start:  cli
        mov esp, 0x180000
        lgdt [gdt_pointer]
        jmp 0x08:loaded
.align 8
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00409312340000ff
gdt_pointer:
        .word 31
        .long gdt
idt_pointer:
        .word 0x187
        .long idt
loaded: mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov eax, 0x18
        mov fs, eax
        mov gs, eax
        lidt [idt_pointer]
        mov dword ptr [0x140000], 0x141001      ; page directory pointers
        mov dword ptr [0x141000], 0x83          ; 2 MiB, one to one
        mov eax, 0x140000
        mov cr3, eax
        mov eax, 0x620                          ; PAE, OSFXSR, OSXMMEXCPT
        mov cr4, eax
        mov eax, 0x80010031
        mov cr0, eax
turn:   inc dword ptr [turns]
        fninit
        fldpi
        fldl2t
        fldcw [control_word]
        mov eax, 0x1234
        movd xmm0, eax
        pshufd xmm1, xmm0, 0
        paddd xmm7, xmm1
        ldmxcsr [sse_control]
        mov eax, 0x100000
        mov dr0, eax
        mov eax, 0x140003
        mov dr3, eax
        mov eax, 0x700
        mov dr7, eax
        MSR 0xc0000081
        MSR 0xc0000082
        MSR 0xc0000084
        MSR 0xc0000102
        MSR 0x174
        MSR 0x175
        MSR 0x176
        int 0x30
        mov eax, [0x40000000]                   ; a page fault; its handler skips 5 bytes
        mov ebx, 0xb0b0b0b0
        mov ebp, 0xb1b1b1b1
        mov esi, 0xb2b2b2b2
        std
        pushfd
        popfd
        mov al, 0x2e
        out 0xe9, al
        cld
        jmp turn
fault:  add esp, 4
        add dword ptr [esp], 5
call:   iretd
.align 8
turns:  .long 0
control_word: .long 0x0a7f
sse_control: .long 0x7f80
idt:    .space 14 * 8
        .long 0x00080000 | (fault & 0xffff)
        .long (fault & 0xffff0000) | 0x8e00
        .space 33 * 8
        .long 0x00080000 | (call & 0xffff)
        .long (call & 0xffff0000) | 0x8e00
