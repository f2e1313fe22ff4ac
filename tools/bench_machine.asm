; Four loops on a machine as kernels make it: two-level paging, and a timer that interrupts a thousand times a second.
; EBP chooses the loop. Each loop gets by ECX how often it is to go round, and ends at `done`.
.origin 0x100000
.entry start
TABLES = 0x400000               ; a directory, and behind it as many tables as cover 8 MiB
SOURCE = 0x500000
TARGET = 0x580000
SIEVE = 0x600000
SIEVE_SIZE = 0x40000
BLOCK = 0x10000
DIVISOR = 1193                  ; of 1.193182 MHz: 1 kHz
VECTOR = 0x20

start:
        lgdt [gdt_pointer]
        lidt [idt_pointer]
        mov esp, 0x90000
        mov edi, TABLES
        xor eax, eax
        mov ecx, 1024
        rep stosd
        mov dword ptr [TABLES], TABLES + 0x1003
        mov dword ptr [TABLES + 4], TABLES + 0x2003
        mov eax, 3
        mov ecx, 2048
map:    stosd
        add eax, 0x1000
        dec ecx
        jnz map
        mov eax, TABLES
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80010000      ; PG, WP
        mov cr0, eax
        jmp paged
paged:  mov eax, tick
        mov word ptr [idt + VECTOR * 8], ax
        shr eax, 16
        mov word ptr [idt + VECTOR * 8 + 6], ax
        mov al, 0x11
        out 0x20, al
        mov al, VECTOR
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 1
        out 0x21, al
        mov al, 0xfe
        out 0x21, al
        mov al, 0x34
        out 0x43, al
        mov al, DIVISOR & 0xff
        out 0x40, al
        mov al, DIVISOR >> 8
        out 0x40, al
        mov ebp, LOOP           ; the tool puts numbers here
        mov ecx, TURNS
        sti
        jmp [loops + ebp * 4]
done:   cli
        hlt

; -- the loops ------------------------------------------------------------------------------

alu:    add eax, ecx
        xor edx, eax
        rol edx, 3
        lea ebx, [eax + edx * 2 + 7]
        sub eax, ebx
        dec ecx
        jnz alu
        jmp done

memcpy: mov esi, SOURCE
        mov edi, TARGET
        mov edx, BLOCK / 16
copy:   mov eax, [esi]
        mov ebx, [esi + 4]
        mov [edi], eax
        mov [edi + 4], ebx
        mov eax, [esi + 8]
        mov ebx, [esi + 12]
        mov [edi + 8], eax
        mov [edi + 12], ebx
        add esi, 16
        add edi, 16
        dec edx
        jnz copy
        dec ecx
        jnz memcpy
        jmp done

calls:  push ecx
        call outer
        add esp, 4
        dec ecx
        jnz calls
        jmp done
outer:  push ebp
        mov ebp, esp
        push [ebp + 8]
        call inner
        add esp, 4
        pop ebp
        ret
inner:  push ebp
        mov ebp, esp
        mov eax, [ebp + 8]
        lea eax, [eax + eax * 4]
        pop ebp
        ret

sieve:  mov edi, SIEVE
        mov eax, 0x01010101
        mov edx, SIEVE_SIZE / 4
fill:   mov [edi], eax
        add edi, 4
        dec edx
        jnz fill
        mov ebx, 2
next:   cmp byte ptr [SIEVE + ebx], 0
        je composite
        mov eax, ebx
        add eax, ebx
strike: cmp eax, SIEVE_SIZE
        jae composite
        mov byte ptr [SIEVE + eax], 0
        add eax, ebx
        jmp strike
composite:
        inc ebx
        cmp ebx, 512
        jb next
        dec ecx
        jnz sieve
        jmp done

; -- the timer --------------------------------------------------------------------------------

tick:   push eax
        inc dword ptr [ticks]
        mov al, 0x20
        out 0x20, al
        pop eax
        iretd

.align 4096
loops:  .long alu, memcpy, calls, sieve
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
        .word gdt_pointer - gdt - 1
        .long gdt
ticks:  .long 0
.align 8
idt:    .space VECTOR * 8
        .word 0, 8, 0x8e00, 0
idt_pointer:
        .word idt_pointer - idt - 1
        .long idt
