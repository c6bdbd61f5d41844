using System.Text.Json;
using System.Text.Json.Serialization;

namespace Ublkback.Backend;

/// <summary>
/// A connected vbd that a daemon left in order: every request that it consumed is answered. Without such a note
/// nobody can know what a daemon had in hand when it ended.
/// </summary>
/// <param name="Frontend">The frontend's directory.</param>
/// <param name="Protocol">The rings' layout.</param>
/// <param name="Queues">The queues, as the frontend described them.</param>
/// <param name="ResponseProducers">For each queue, responses published since its ring was made.</param>
public sealed record Handover(
    string Frontend, string Protocol, IReadOnlyList<FrontendQueue> Queues, IReadOnlyList<uint> ResponseProducers)
{
    /// <summary>Whether the note speaks of the rings that the frontend describes now.</summary>
    public bool Fits(string frontend, FrontendParameters parameters) =>
        Frontend == frontend && Protocol == parameters.Abi.Protocol && Queues.SequenceEqual(parameters.Queues)
        && ResponseProducers.Count == Queues.Count;
}

/// <summary>The notes, one file a vbd, in the daemon's run-time directory.</summary>
public sealed class HandoverDirectory(string path)
{
    /// <summary>Leaves a note.</summary>
    public void Put(VbdAddress address, Handover handover)
    {
        Directory.CreateDirectory(path);
        string file = FileOf(address);
        File.WriteAllBytes(file + ".new", JsonSerializer.SerializeToUtf8Bytes(handover, HandoverJson.Default.Handover));
        File.Move(file + ".new", file, overwrite: true);
    }

    /// <summary>The note on a vbd; null when there is none that can be read.</summary>
    public Handover? Read(VbdAddress address)
    {
        try
        {
            string file = FileOf(address);
            return File.Exists(file)
                ? JsonSerializer.Deserialize(File.ReadAllBytes(file), HandoverJson.Default.Handover)
                : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }

    /// <summary>Removes the note on a vbd, if there is one.</summary>
    public void Remove(VbdAddress address)
    {
        if (Directory.Exists(path)) File.Delete(FileOf(address));
    }

    private string FileOf(VbdAddress address) => Path.Combine(path, $"handover-{address.KernelName}.json");
}

[JsonSerializable(typeof(Handover))]
internal sealed partial class HandoverJson : JsonSerializerContext;
