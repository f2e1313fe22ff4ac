"""All cases, by family."""
from tools.real_cpu.case import Case

def all_cases():
    return [Case("a/end","nop"), Case("a/read","mov eax,[ABSENT+8]"), Case("a/wr","mov [RO+8],eax"),Case("a/wr2","mov [RO_THEN_ABSENT+8],rax"),
     Case("a/none","add dword ptr [NO_RIGHTS+8],1"),Case("a/high","mov eax,[rdi]",{"rdi":0x612345670ffe}),Case("a/nx","mov eax,DATA\njmp rax"),
     Case("a/gp","mov eax,[rdi]",{"rdi":1<<47}), Case("a/ss","mov eax,[rbp]",{"rbp":1<<47}),Case("a/tf","nop\nnop",eflags=0x100),Case("a/ac","mov eax,[DATA+1]",eflags=1<<18),
     Case("a/cli","cli"),Case("a/hlt","hlt"),Case("a/ud","ud2"),Case("a/int1",".byte 0xf1"),Case("a/int","int 0x20"),Case("a/int4","int 4"),
     Case("a/div","xor ecx,ecx\ndiv ecx"),Case("a/sel","mov ecx,0x1238\nmov ds,ecx"),Case("a/np","mov ecx,ABSENT_DATA\nmov ds,ecx"),
     Case("a/32","mov eax,[ABSENT]",bits=32),Case("a/32sm","mov ecx,SMALL\nmov ds,ecx\nmov eax,[0x7fd]",bits=32),Case("a/into","mov al,127\nadd al,1\ninto",bits=32)]
