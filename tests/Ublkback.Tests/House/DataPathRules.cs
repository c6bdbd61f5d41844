using Microsoft.CodeAnalysis;

namespace Ublkback.Tests.House;

/// <summary>Which symbols of .NET block a thread or allocate, whatever name or <c>using</c> leads to them.</summary>
internal static class DataPathRules
{
    // Every member of these types and of the types derived from them.
    private static readonly HashSet<string> BlockingTypes =
    [
        "System.Threading.Monitor", "System.Threading.Lock", "System.Threading.WaitHandle",
        "System.Threading.SemaphoreSlim", "System.Threading.ManualResetEventSlim", "System.Threading.CountdownEvent",
        "System.Threading.Barrier", "System.Threading.ReaderWriterLock", "System.Threading.ReaderWriterLockSlim",
        "System.Threading.SpinLock", "System.Threading.SpinWait",
        "System.Threading.Tasks.Parallel", "System.Collections.Concurrent.BlockingCollection<T>",
        "System.IO.File", "System.IO.Directory", "System.IO.FileSystemInfo", "System.IO.FileStream",
        "System.IO.RandomAccess", "System.IO.TextReader", "System.IO.TextWriter",
        "System.Net.Sockets.Socket", "System.Net.Sockets.NetworkStream", "System.Diagnostics.Process",
        "System.Console",
    ];

    private static readonly Dictionary<string, string[]> BlockingMembers = new()
    {
        ["System.Threading.Thread"] = ["Sleep", "Join", "SpinWait"],
        ["System.Threading.Tasks.Task"] = ["Wait", "WaitAll", "WaitAny", "RunSynchronously"],
        ["System.Threading.Tasks.Task<TResult>"] = ["Result"],
        ["System.Threading.Tasks.ValueTask<TResult>"] = ["Result"],
        ["System.IO.Stream"] =
            ["Read", "ReadByte", "ReadExactly", "ReadAtLeast", "Write", "WriteByte", "Flush", "CopyTo"],
    };

    private static readonly HashSet<string> AllocatingTypes =
    [
        "System.Linq.Enumerable", "System.Collections.Immutable.ImmutableArray", "System.Activator",
        "System.Threading.ThreadPool", "System.Threading.Tasks.TaskFactory",
        "System.Threading.Tasks.TaskFactory<TResult>",
    ];

    private static readonly Dictionary<string, string[]> AllocatingMembers = new()
    {
        ["System.String"] = ["Format", "Join", "Concat", "Substring", "Replace", "Split", "Create"],
        ["System.Threading.Tasks.Task"] =
            ["Run", "Start", "Delay", "WhenAll", "WhenAny", "WhenEach", "ContinueWith", "Factory", "WaitAsync"],
        ["System.GC"] = ["AllocateArray", "AllocateUninitializedArray"],
        ["System.Array"] = ["Resize"],
        ["System.Threading.Tasks.ValueTask"] = ["AsTask"],
        ["System.Threading.Tasks.ValueTask<TResult>"] = ["AsTask"],
    };

    private static readonly SymbolDisplayFormat FullName = new(
        typeQualificationStyle: SymbolDisplayTypeQualificationStyle.NameAndContainingTypesAndNamespaces,
        genericsOptions: SymbolDisplayGenericsOptions.IncludeTypeParameters);

    public static bool Blocks(ISymbol member) =>
        IsListed(member, BlockingTypes, BlockingMembers) || IsWaitForTask(member);

    public static bool Allocates(ISymbol member) =>
        IsListed(member, AllocatingTypes, AllocatingMembers) || member.Name is "ToString" or "ToArray";

    public static string NameOf(ISymbol symbol) => symbol.ToDisplayString(FullName);

    private static bool IsListed(ISymbol member, HashSet<string> types, Dictionary<string, string[]> members)
    {
        for (INamedTypeSymbol? type = member.ContainingType; type is not null; type = type.BaseType)
        {
            string name = NameOf(type.OriginalDefinition);
            if (types.Contains(name)) return true;
            if (members.TryGetValue(name, out string[]? names) && names.Contains(member.Name)) return true;
        }

        return false;
    }

    // GetResult of the awaiters of .NET; an awaiter of ours never waits.
    private static bool IsWaitForTask(ISymbol member) =>
        member is { Name: "GetResult", ContainingType: { } type }
        && NameOf(type).StartsWith("System.Runtime.CompilerServices.", StringComparison.Ordinal);
}
