; four events of a program, each with its own handler: what `hvproto run --compare` counts instructions between
;
; The program in ring 3 divides by zero, touches a page that is not there, makes a system call, and waits for a timer
; interrupt, a few times over. Of each event four places have names: EVENT_from is the instruction that it happens to,
; EVENT_handler the first instruction of the kernel's handler, EVENT_leave the handler's IRET, and EVENT_back the
; instruction of the program after it. A handler does no more than it must.

.origin 0x100000
.entry start

.include "guest/multiboot.asm"
.include "guest/console.asm"

.equ ROUNDS, 5
.equ DEMAND, 0x00300000             ; the page that is not there
.equ DEMAND_ENTRY, table + (DEMAND >> 12) * 4

.equ CALL_NOTHING, 0                ; int 0x80 with the number in eax
.equ CALL_TAKE, 1                   ; take the page away again
.equ CALL_TIMER, 2                  ; let one timer interrupt come
.equ CALL_DONE, 3

.equ KERNEL_CODE, 0x08
.equ KERNEL_DATA, 0x10
.equ USER_CODE, 0x1b
.equ USER_DATA, 0x23
.equ TASK, 0x28

.macro gate vector, handler, kind   ; kind: 0x8e00 for the kernel and the processor, 0xee00 for INT n of programs, too
    mov eax, \handler
    mov word ptr [idt + \vector * 8], ax
    mov word ptr [idt + \vector * 8 + 2], KERNEL_CODE
    mov word ptr [idt + \vector * 8 + 4], \kind
    shr eax, 16
    mov word ptr [idt + \vector * 8 + 6], ax
.endm

start:
    cli
    cld
    mov esp, stack_top
    call console_initialise
    lgdt [gdt_pointer]
    mov eax, KERNEL_DATA
    mov ds, ax
    mov es, ax
    mov ss, ax
    jmp KERNEL_CODE:own_segments
own_segments:
    gate 0, divide_handler, 0x8e00
    gate 14, fault_handler, 0x8e00
    gate 0x20, timer_handler, 0x8e00
    gate 0x80, call_handler, 0xee00
    lidt [idt_pointer]
    mov ax, TASK
    ltr ax

    mov edi, table                  ; 4 MiB one to one, for the kernel ...
    mov eax, 3
    mov ecx, 1024
.page:
    stosd
    add eax, 0x1000
    loop .page
    or dword ptr [table + (program >> 12) * 4], 4           ; ... but for the program's two pages
    or dword ptr [table + (program_stack >> 12) * 4], 4
    mov dword ptr [DEMAND_ENTRY], 0
    mov dword ptr [directory], table + 7
    mov eax, directory
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax

    mov al, 0x11                    ; the interrupt controllers: vectors 0x20-0x2f, all masked
    out 0x20, al
    out 0xa0, al
    mov al, 0x20
    out 0x21, al
    mov al, 0x28
    out 0xa1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, 1
    out 0x21, al
    out 0xa1, al
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    mov al, 0x34                    ; the timer: 1193182 Hz / 300, 4000 a second
    out 0x43, al
    mov al, 300 & 0xff
    out 0x40, al
    mov al, 300 >> 8
    out 0x40, al

    push USER_DATA
    push program_stack_top
    push 0x202
    push USER_CODE
    push program
    iret

divide_handler:
    add dword ptr [esp], 2          ; behind the DIV
divide_leave:
    iret

fault_handler:
    mov dword ptr [DEMAND_ENTRY], DEMAND + 7
    add esp, 4                      ; the error code
fault_leave:
    iret

call_handler:
    cmp eax, CALL_NOTHING
    je call_leave
    cmp eax, CALL_TIMER
    je call_timer
    cmp eax, CALL_DONE
    je done
    mov dword ptr [DEMAND_ENTRY], 0
    invlpg [DEMAND]
call_leave:
    iret
call_timer:
    mov al, 0xfe
    out 0x21, al
    iret

timer_handler:
    mov al, 0xff
    out 0x21, al
    mov al, 0x20
    out 0x20, al
    mov dword ptr [esp], timer_back ; out of the program's loop
timer_leave:
    iret

done:
    mov esi, text_done
    call print
stop:
    cli
    hlt
    jmp stop

text_done: .asciz "compare: done\n"

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        ; 0x08 kernel code
    .quad 0x00cf93000000ffff        ; 0x10 kernel data
    .quad 0x00cffb000000ffff        ; 0x18 user code
    .quad 0x00cff3000000ffff        ; 0x20 user data
    .word 103, tss & 0xffff         ; 0x28 the task state segment
    .byte (tss >> 16) & 0xff, 0x89, 0, tss >> 24
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
.align 4
idt_pointer:
    .word 256 * 8 - 1
    .long idt

.align 128                          ; within one page
tss:
    .long 0
    .long stack_top                 ; +4: where the stack is in ring 0
    .long KERNEL_DATA
    .space 0x5a
    .word 104                       ; no port is open to programs

.align 4096
program:
    mov esi, ROUNDS
program_round:
    mov eax, 1
    xor edx, edx
    xor ecx, ecx
divide_from:
    div ecx
divide_back:
    nop
fault_from:
    mov dword ptr [DEMAND], esi
fault_back:
    mov eax, CALL_TAKE
    int 0x80
    mov eax, CALL_NOTHING
call_from:
    int 0x80
call_back:
    mov eax, CALL_TIMER
    int 0x80
timer_from:
    jmp timer_from                  ; whichever of its turns the interrupt comes after
timer_back:
    dec esi
    jnz program_round
    mov eax, CALL_DONE
    int 0x80

.align 4096
program_stack: .space 4096
program_stack_top:
directory: .space 4096
table: .space 4096
idt: .space 256 * 8
    .space 2048
stack_top:
image_end:
