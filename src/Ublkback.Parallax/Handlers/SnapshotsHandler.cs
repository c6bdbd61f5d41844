using System.Text.Json.Serialization;
using Ublkback.Block;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Map;
using Ublkback.Parallax.Requests;

namespace Ublkback.Parallax.Handlers;

/// <summary>Asks for all snapshots.</summary>
internal sealed record SnapshotsRequest() : VdiRequest("snapshots");

/// <summary>The VDI's snapshots and size.</summary>
/// <param name="Snapshots">
/// The snapshots in the order of their creation, each as an entry of the VDI format's table of snapshots.
/// </param>
/// <param name="SizeBytes">The size of the disk.</param>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Skip)]
internal sealed record SnapshotsReply(IReadOnlyList<byte[]> Snapshots, long SizeBytes) : VdiReply
{
    /// <summary>Returns the snapshots.</summary>
    /// <exception cref="TargetException">An entry has another length.</exception>
    public IReadOnlyList<VdiSnapshot> ReadAll() => Snapshots.All(entry => entry?.Length == VdiSnapshot.Length)
        ? [.. Snapshots.Select(entry => VdiSnapshot.Read(entry))]
        : throw new TargetException(
            $"a snapshot in the reply of {VdiProtocol.Messages.Server} does not have {VdiSnapshot.Length} bytes",
            VdiProtocol.Messages.Remedy);
}

/// <summary>Carries out <c>snapshots</c>.</summary>
internal static class SnapshotsHandler
{
    public static readonly VdiHandler<SnapshotsRequest, SnapshotsReply> Instance = new(
        "snapshots", SnapshotsJson.Default.SnapshotsRequest, SnapshotsJson.Default.SnapshotsReply, RunAsync);

    private static Task<SnapshotsReply> RunAsync(SnapshotsRequest request, VdiHolder holder)
    {
        VdiContent content = holder.Image.Parts.Content;
        return Task.FromResult(new SnapshotsReply([.. content.Snapshots.All.Select(ToEntry)], content.Size));
    }

    private static byte[] ToEntry(VdiSnapshot snapshot)
    {
        byte[] entry = new byte[VdiSnapshot.Length];
        snapshot.Write(entry);
        return entry;
    }
}

/// <summary>How requests and replies are written and read.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(SnapshotsRequest))]
[JsonSerializable(typeof(SnapshotsReply))]
internal sealed partial class SnapshotsJson : JsonSerializerContext;
